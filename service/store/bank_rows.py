"""Reads a machine's bank, and holds what is read against what was written."""

import numpy as np
from sqlalchemy import Connection, select

from service.bank import BankRows
from service.domain.machine import Domain
from service.store.clip_counts import ClipCounts
from service.store.condition_rows import conditions_of
from service.store.noise import noise_vectors
from service.store.schema import clip, embedding
from service.store.spectrograms import read_spectrograms
from service.store.vectors import Window, check_windows, stacked


def bank_rows(
    connection: Connection, counts: ClipCounts, machine_key: int, generation: int, embedding_space_id: str | None
) -> BankRows:
    """Read a bank. Raises ValueError, TypeError or what SQLite says if it is not what was written."""
    of_clip, of_window = clip.c, embedding.c
    rows = connection.execute(
        select(of_clip.clip_id, of_clip.name, of_clip.recording, of_clip.domain, of_window.window)
        .add_columns(of_window.start_s, of_window.vector, of_window.checksum)
        .join(embedding, of_window.clip_id == of_clip.clip_id, isouter=True)
        .where(of_clip.machine_key == machine_key)
        .order_by(of_clip.clip_id, of_window.window)
    ).all()
    check_windows(
        machine_key,
        [Window(row.clip_id, row.domain, row.window, row.start_s, row.vector, row.checksum) for row in rows],
    )
    # The rows were found by an index; without it there must be as many.
    clips = counts.of(connection, machine_key, generation)
    if clips != len({row.clip_id for row in rows}):
        raise ValueError(f"{clips} clips are stored, {len({row.clip_id for row in rows})} are found")
    if (embedding_space_id is None) != (not rows):
        raise ValueError(f"{clips} clips are stored, of embedding space {embedding_space_id}")
    spectrograms = read_spectrograms(connection, machine_key)
    named: dict[str, int] = {}  # a recording goes by its first clip
    recordings = [
        row.clip_id if row.recording is None else named.setdefault(row.recording, row.clip_id) for row in rows
    ]
    vectors = stacked([row.vector for row in rows])
    return BankRows(
        generation=generation,
        embedding_space_id=embedding_space_id,
        vectors=vectors,
        clips=np.array([row.clip_id for row in rows], dtype=np.int64),
        recordings=np.array(recordings, dtype=np.int64),
        starts=np.array([row.start_s for row in rows], dtype=np.float64),
        domains=tuple(Domain(row.domain) for row in rows),
        names={row.clip_id: row.name for row in rows},
        conditions={clip_id: found for clip_id, (found, _) in conditions_of(connection, machine_key).items()},
        spectrograms={
            at: spectrograms[row.clip_id, row.window]
            for at, row in enumerate(rows)
            if (row.clip_id, row.window) in spectrograms
        },
        noise=noise_vectors(connection, machine_key, vectors.shape[1]) if rows else vectors,
    )
