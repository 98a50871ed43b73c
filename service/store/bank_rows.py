"""Read the bank of a machine, and check that the rows are what was written."""

import numpy as np
from sqlalchemy import Connection, and_, bindparam, select

from offkey.vocabulary import Domain
from service.bank import BankRows, CalibrationRows
from service.store.acoustics import acoustics_of
from service.store.cells import Cells, read_cells
from service.store.clip_counts import ClipCounts
from service.store.embeddings import check_windows, stacked
from service.store.noise import noise_vectors
from service.store.pieces import count_pieces, read_pieces
from service.store.schema import acoustics, clip, embedding, slices, spectrogram

# Whether there are acoustics, a spectrogram and slices, not these themselves.
_BANK = (
    select(clip.c.clip_id, clip.c.domain, embedding.c.window, embedding.c.start_s, embedding.c.vector)
    .add_columns(embedding.c.checksum, clip.c.name, clip.c.recording, clip.c.seconds)
    .add_columns(acoustics.c.clip_id.label("has_acoustics"), spectrogram.c.window.label("has_spectrogram"))
    .add_columns(slices.c.window.label("has_slices"))
    .join(embedding, embedding.c.clip_id == clip.c.clip_id, isouter=True)
    .join(acoustics, acoustics.c.clip_id == clip.c.clip_id, isouter=True)
    .join(
        spectrogram,
        and_(spectrogram.c.clip_id == clip.c.clip_id, spectrogram.c.window == embedding.c.window),
        isouter=True,
    )
    .join(slices, and_(slices.c.clip_id == clip.c.clip_id, slices.c.window == embedding.c.window), isouter=True)
    .where(clip.c.machine_key == bindparam("machine_key"))
    .order_by(clip.c.clip_id, embedding.c.window)
)
_WINDOWS = (
    select(clip.c.clip_id, embedding.c.window)
    .join(embedding, embedding.c.clip_id == clip.c.clip_id)
    .where(clip.c.machine_key == bindparam("machine_key"))
    .order_by(clip.c.clip_id, embedding.c.window)
)


def bank_rows(
    connection: Connection, counts: ClipCounts, machine_key: int, generation: int, embedding_space_id: str | None
) -> BankRows:
    """Read the rows of a bank.

    Raises ValueError, TypeError or the error of the database if they are not what was written.
    """
    rows = connection.execute(_BANK, {"machine_key": machine_key}).all()
    columns = zip(*rows, strict=True) if rows else ((),) * len(_BANK.selected_columns)
    ids, kinds, windows, starts, blobs, checksums, names, labels, seconds, measured, spectrograms, sliced = columns
    check_windows(machine_key, list(zip(ids, kinds, windows, starts, blobs, checksums, strict=True)))
    # The rows were found through an index. A count without it must agree.
    clips = counts.of(connection, machine_key, generation)
    if clips != len(set(ids)):
        raise ValueError(f"{clips} clips are stored, {len(set(ids))} are found")
    if (embedding_space_id is None) != (not rows):
        raise ValueError(f"{clips} clips are stored, of embedding space {embedding_space_id}")
    named: dict[str, int] = {}  # first clip of each recording, whose id is the number of the recording
    recordings = [
        clip_id if label is None else named.setdefault(label, clip_id)
        for clip_id, label in zip(ids, labels, strict=True)
    ]
    domains = {kind: Domain(kind) for kind in set(kinds)}
    vectors = stacked(blobs)
    last = dict(zip(ids, starts, strict=True))  # the last window ends with the clip, and all are equally long
    return BankRows(
        generation=generation,
        embedding_space_id=embedding_space_id,
        vectors=vectors,
        clips=np.array(ids, dtype=np.int64),
        recordings=np.array(recordings, dtype=np.int64),
        starts=np.array(starts, dtype=np.float64),
        ends=np.array(
            [start + whole - last[clip_id] for clip_id, start, whole in zip(ids, starts, seconds, strict=True)],
            dtype=np.float64,
        ),
        domains=tuple(domains[kind] for kind in kinds),
        names=dict(zip(ids, names, strict=True)),
        measured=frozenset(clip_id for clip_id in measured if clip_id is not None),
        has_spectrogram=frozenset(row for row, window in enumerate(spectrograms) if window is not None),
        has_slices=frozenset(row for row, window in enumerate(sliced) if window is not None),
        pieces=count_pieces(connection, machine_key),
        noise=noise_vectors(connection, machine_key, vectors.shape[1]) if rows else vectors,
    )


def calibration_rows(connection: Connection, machine_key: int) -> CalibrationRows:
    """Read what only a calibration is fitted to.

    Raises ValueError, TypeError or the error of the database if they are not what was written.
    """
    windows = connection.execute(_WINDOWS, {"machine_key": machine_key}).all()
    rows = {(clip_id, window): row for row, (clip_id, window) in enumerate(windows)}

    def by_row(cells: dict[tuple[int, int], Cells]) -> dict[int, Cells]:
        return {rows[place]: one for place, one in cells.items() if place in rows}

    return CalibrationRows(
        acoustics={clip_id: found for clip_id, (found, _) in acoustics_of(connection, machine_key).items()},
        spectrograms=by_row(read_cells(connection, spectrogram, machine_key)),
        slices=by_row(read_cells(connection, slices, machine_key)),
        pieces=read_pieces(connection, machine_key),
    )
