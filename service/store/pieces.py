"""Store variants and cuts of enrolled clips: written with the clip, read when a calibration is fitted."""

import struct
import zlib
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from sqlalchemy import Connection, func, insert, select

from service.domain.enrolled import Piece, PieceKind
from service.store.cells import pack, unpack
from service.store.schema import clip, piece

_DTYPE = np.dtype("<f2")
_KEYS = struct.Struct("<qqdq")
_ADD = insert(piece)


class PieceRow(NamedTuple):
    """A row of `piece`."""

    clip_id: int
    number: int
    kind: str
    seconds: float
    vector: bytes
    bands: int
    cells: bytes
    checksum: int


def write_pieces(connection: Connection, clip_id: int, pieces: Sequence[Piece]) -> None:
    """Write the pieces of a clip."""
    rows = []
    for number, one in enumerate(pieces):
        bands = 0 if one.slices is None else one.slices.shape[1]
        row = PieceRow(
            clip_id,
            number,
            one.kind.value,
            one.seconds,
            one.vector.astype(_DTYPE).tobytes(),
            bands,
            b"" if one.slices is None else pack(one.slices),
            0,
        )
        rows.append(row._replace(checksum=_checksum(row))._asdict())
    if rows:
        connection.execute(_ADD, rows)


def count_pieces(connection: Connection, machine_key: int) -> dict[int, int]:
    """Return how many pieces the clips of a machine have, by clip id. Clips without are absent."""
    rows = connection.execute(
        select(piece.c.clip_id, func.count().label("pieces"))
        .join(clip, clip.c.clip_id == piece.c.clip_id)
        .where(clip.c.machine_key == machine_key)
        .group_by(piece.c.clip_id)
    )
    return {row.clip_id: row.pieces for row in rows}


def read_pieces(connection: Connection, machine_key: int) -> list[tuple[int, Piece]]:
    """Return the pieces of a machine's clips with the clip ids. Raises ValueError if one is not what was written."""
    rows = connection.execute(
        select(*(piece.c[name] for name in PieceRow._fields))
        .join(clip, clip.c.clip_id == piece.c.clip_id)
        .where(clip.c.machine_key == machine_key)
        .order_by(piece.c.clip_id, piece.c.number)
    )
    return unpack_pieces(PieceRow(*row) for row in rows)


def unpack_pieces(rows: Iterable[PieceRow]) -> list[tuple[int, Piece]]:
    """Convert rows to pieces with their clip ids. Raises ValueError if one is not what was written."""
    found = []
    for row in rows:
        if _checksum(row) != row.checksum:
            raise ValueError(f"piece {row.number} of clip {row.clip_id} does not fit its checksum")
        vector = np.frombuffer(row.vector, dtype=_DTYPE).astype(np.float32)
        slices = unpack(row.cells, row.bands) if row.bands else None
        found.append((row.clip_id, Piece(PieceKind(row.kind), row.seconds, vector, slices)))
    return found


def _checksum(row: PieceRow) -> int:
    head = _KEYS.pack(row.clip_id, row.number, row.seconds, row.bands) + row.kind.encode()
    return zlib.crc32(row.cells, zlib.crc32(row.vector, zlib.crc32(head)))
