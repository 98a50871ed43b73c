"""Store arrays of enrolled windows in half precision, each with a checksum: downsampled spectrograms, and slices.

Clips that were enrolled before a table existed have no rows in it.
"""

import struct
import zlib
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, Table, insert, select

from service.store.schema import clip, slices, spectrogram

DTYPE = np.dtype("<f2")
TABLES = (spectrogram, slices)
_KEYS = struct.Struct("<qqq")
_ADD = {table: insert(table) for table in TABLES}

Place = tuple[int, int]  # clip id and window
Cells = NDArray[np.float32]  # (steps, bands)


class Row(NamedTuple):
    """A row of one of `TABLES`."""

    clip_id: int
    window: int
    bands: int
    cells: bytes
    checksum: int


def write_cells(connection: Connection, table: Table, clip_id: int, windows: Sequence[Cells]) -> None:
    """Write the arrays of a clip's windows, in order of time. Writes nothing if the bundle gives none."""
    rows = []
    for window, cells in enumerate(windows):
        packed = pack(cells)
        bands = cells.shape[1]
        rows.append(Row(clip_id, window, bands, packed, _checksum(clip_id, window, bands, packed))._asdict())
    if rows:
        connection.execute(_ADD[table], rows)


def read_cells(connection: Connection, table: Table, machine_key: int) -> dict[Place, Cells]:
    """Return all arrays of a machine. Raises ValueError if one is not what was written."""
    columns = table.c
    rows = connection.execute(
        select(columns.clip_id, columns.window, columns.bands, columns.cells, columns.checksum)
        .join(clip, clip.c.clip_id == columns.clip_id)
        .where(clip.c.machine_key == machine_key)
    )
    return unpack_rows((Row(*row) for row in rows), table.name)


def unpack_rows(rows: Iterable[Row], name: str) -> dict[Place, Cells]:
    """Return the arrays of one machine. Raises ValueError if one is not what was written, or has another width."""
    found: dict[Place, Cells] = {}
    widths = set()
    for row in rows:
        if _checksum(row.clip_id, row.window, row.bands, row.cells) != row.checksum:
            raise ValueError(f"the {name} of window {row.window} of clip {row.clip_id} does not fit its checksum")
        found[row.clip_id, row.window] = unpack(row.cells, row.bands)
        widths.add(row.bands)
    if len(widths) > 1:
        raise ValueError(f"{name} of {sorted(widths)} bands are in one bank")
    return found


def pack(cells: Cells) -> bytes:
    """Convert an array to bytes in half precision."""
    return cells.astype(DTYPE).tobytes()


def unpack(cells: bytes, bands: int) -> Cells:
    """Convert bytes of `pack` to `(steps, bands)`."""
    return np.frombuffer(cells, dtype=DTYPE).reshape(-1, bands).astype(np.float32)


def _checksum(clip_id: int, window: int, bands: int, cells: bytes) -> int:
    return zlib.crc32(cells, zlib.crc32(_KEYS.pack(clip_id, window, bands)))
