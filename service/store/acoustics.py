"""Store the acoustics of enrolled clips: written with the clip, read with the bank."""

import numpy as np
from sqlalchemy import Connection, RowMapping, insert, select

from offkey.vocabulary import Domain
from service.domain.acoustics import Acoustics
from service.store.embeddings import DTYPE
from service.store.schema import acoustics, clip

COLUMNS = tuple(column for column in acoustics.c if column is not acoustics.c.clip_id)
_ADD = insert(acoustics)


def add_acoustics(connection: Connection, clip_id: int, found: Acoustics | None) -> None:
    """Write the acoustics of a clip in the transaction that enrolls it."""
    if found is not None:
        connection.execute(
            _ADD,
            {
                "clip_id": clip_id,
                "level_dbfs": found.level_dbfs,
                "noise_floor_dbfs": found.noise_floor_dbfs,
                "bandwidth_hz": found.bandwidth_hz,
                "clipped": found.clipped,
                "codec": found.codec,
                "bands_dbfs": np.array(found.bands_dbfs, dtype=DTYPE).tobytes(),
            },
        )


def acoustics_in(row: RowMapping) -> Acoustics:
    """Convert a row with `COLUMNS` and those of its clip. Raises ValueError or TypeError if it is damaged."""
    return Acoustics(
        level_dbfs=row["level_dbfs"],
        noise_floor_dbfs=row["noise_floor_dbfs"],
        bandwidth_hz=row["bandwidth_hz"],
        clipped=row["clipped"],
        bands_dbfs=tuple(np.frombuffer(row["bands_dbfs"], dtype=DTYPE).tolist()),
        sample_rate=row["sample_rate"],
        channels=row["channels"],
        codec=row["codec"],
    )


def acoustics_of(
    connection: Connection, machine_key: int, domain: Domain | None = None, newest: int | None = None
) -> dict[int, tuple[Acoustics, str | None]]:
    """Return the acoustics and recordings of a machine's clips, by clip id, newest first. Clips without are left out.

    Args:
        connection: connection in a transaction.
        machine_key: key of the machine.
        domain: domain of the clips; None for both.
        newest: largest number of clips; None for all.

    Raises:
        ValueError, TypeError: they are not what was written.
    """
    query = (
        select(*COLUMNS, clip.c.clip_id, clip.c.sample_rate, clip.c.channels, clip.c.recording)
        .join(clip, clip.c.clip_id == acoustics.c.clip_id)
        .where(clip.c.machine_key == machine_key)
        .order_by(clip.c.clip_id.desc())
        .limit(newest)
    )
    if domain is not None:
        query = query.where(clip.c.domain == domain.value)
    found = {
        row.clip_id: (
            acoustics_in(row._mapping),
            row.recording,
        )
        for row in connection.execute(query)
    }
    widths = {len(one.bands_dbfs) for one, _ in found.values()}
    if len(widths) > 1:
        raise ValueError(f"acoustics of {sorted(widths)} bands are in one bank")
    return found
