"""The coarse spectrograms of enrolled windows: half precision, each with a checksum.

Clips that were enrolled before there were any have none.
"""

import struct
import zlib
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from sqlalchemy import Connection, insert, select

from service.domain.spectrogram import Spectrogram
from service.store.schema import clip, spectrogram

_DTYPE = np.dtype("<f2")
_KEYS = struct.Struct("<qqq")
_ADD = insert(spectrogram)

Place = tuple[int, int]  # clip id and window


class Row(NamedTuple):
    """A row of `spectrogram`."""

    clip_id: int
    window: int
    bands: int
    cells: bytes
    checksum: int


def write_spectrograms(connection: Connection, clip_id: int, windows: Sequence[Spectrogram]) -> None:
    """Keep the windows of a clip, in order of time; none if the bundle gives none."""
    rows = []
    for window, cells in enumerate(windows):
        packed = cells.astype(_DTYPE).tobytes()
        bands = cells.shape[1]
        rows.append(Row(clip_id, window, bands, packed, _checksum(clip_id, window, bands, packed))._asdict())
    if rows:
        connection.execute(_ADD, rows)


def read_spectrograms(connection: Connection, machine_key: int) -> dict[Place, Spectrogram]:
    """All that are kept for a machine. Raises ValueError if one is not what was written."""
    columns = spectrogram.c
    rows = connection.execute(
        select(columns.clip_id, columns.window, columns.bands, columns.cells, columns.checksum)
        .join(clip, clip.c.clip_id == columns.clip_id)
        .where(clip.c.machine_key == machine_key)
    )
    return unpacked(Row(*row) for row in rows)


def unpacked(rows: Iterable[Row]) -> dict[Place, Spectrogram]:
    """The spectrograms of one machine. Raises ValueError if one is not what was written, or is like no other."""
    found: dict[Place, Spectrogram] = {}
    widths = set()
    for row in rows:
        if _checksum(row.clip_id, row.window, row.bands, row.cells) != row.checksum:
            raise ValueError(f"the spectrogram of window {row.window} of clip {row.clip_id} does not fit its checksum")
        found[row.clip_id, row.window] = np.frombuffer(row.cells, dtype=_DTYPE).reshape(-1, row.bands).astype("f4")
        widths.add(row.bands)
    if len(widths) > 1:
        raise ValueError(f"spectrograms of {sorted(widths)} bands lie in one bank")
    return found


def _checksum(clip_id: int, window: int, bands: int, cells: bytes) -> int:
    return zlib.crc32(cells, zlib.crc32(_KEYS.pack(clip_id, window, bands)))
