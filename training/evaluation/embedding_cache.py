"""Caches embeddings on disk by content, so that a sound is embedded once."""

import hashlib
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from offkey import atomic
from service.domain.enrolled import Piece, PieceKind
from service.domain.slices import Slices
from training.data.catalog import DataError
from training.evaluation.embedders import Embedded


@dataclass(frozen=True)
class EmbeddingCache:
    """A folder with one file for each embedder and sound."""

    folder: Path

    def path(self, embedder: str, sound: str) -> Path:
        """Return the path for the keys of an embedder and a sound."""
        name = hashlib.sha256(f"{embedder}\n{sound}".encode()).hexdigest()
        return self.folder / name[:2] / f"{name}.npz"

    def has(self, embedder: str, sound: str) -> bool:
        """Return whether the embeddings are cached."""
        return self.path(embedder, sound).is_file()

    def save(self, embedder: str, sound: str, embedded: Embedded) -> None:
        """Write embeddings atomically."""
        path = self.path(embedder, sound)
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic.replacing(path) as temporary:
            np.savez(temporary, **_arrays(embedded))  # type: ignore[arg-type] # mypy expects keyword arguments here

    def load(self, embedder: str, sound: str) -> Embedded:
        """Load cached embeddings. Raises `DataError` if the file is damaged."""
        path = self.path(embedder, sound)
        try:
            # numpy does not close its own handle of a damaged file.
            with path.open("rb") as file, np.load(file, allow_pickle=False) as found:
                return _embedded(found)
        except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
            raise DataError(f"{path} is damaged ({error}). Remove it and run again.") from error


def _arrays(embedded: Embedded) -> dict[str, NDArray[Any]]:
    """Flatten embeddings to arrays. Slices are in half precision, as a store has them."""
    pieces = [piece for _, piece in embedded.pieces]
    of_pieces = [piece.slices for piece in pieces]
    slices, lengths = _flat(embedded.slices)
    piece_slices, piece_lengths = _flat([np.empty((0, 0), np.float32) if one is None else one for one in of_pieces])
    return {
        "vectors": embedded.vectors,
        "clips": embedded.clips,
        "ends": embedded.ends,
        "window_seconds": embedded.window_seconds,
        "slices": slices,
        "slice_lengths": lengths,
        "piece_clips": np.array([clip for clip, _ in embedded.pieces], dtype=np.int64),
        "piece_kinds": np.array([piece.kind.value for piece in pieces], dtype="U8"),
        "piece_seconds": np.array([piece.seconds for piece in pieces], dtype=np.float64),
        "piece_vectors": np.array([piece.vector for piece in pieces], dtype=np.float16),
        "piece_slices": piece_slices,
        "piece_lengths": piece_lengths,
    }


def _flat(parts: Sequence[Slices]) -> tuple[NDArray[np.float16], NDArray[np.int64]]:
    """Concatenate arrays `(steps, width)`. Returns all rows, and the number of steps of each array."""
    full = [part for part in parts if part.size]
    rows = np.concatenate(full) if full else np.empty((0, 0), np.float32)
    return rows.astype(np.float16), np.array([len(part) for part in parts], dtype=np.int64)


def _embedded(found: Mapping[str, NDArray[Any]]) -> Embedded:
    vectors = found["piece_vectors"].astype(np.float32)
    slices = _parts(found["piece_slices"], found["piece_lengths"])
    pieces = [
        (clip, Piece(PieceKind(kind), seconds, vector, own if len(own) else None))
        for clip, kind, seconds, vector, own in zip(
            found["piece_clips"].tolist(),
            found["piece_kinds"].tolist(),
            found["piece_seconds"].tolist(),
            vectors,
            slices,
            strict=True,
        )
    ]
    own_slices = tuple(_parts(found["slices"], found["slice_lengths"]))
    windows = found["window_seconds"]
    return Embedded(found["vectors"], found["clips"], found["ends"], own_slices, tuple(pieces), windows)


def _parts(rows: NDArray[np.float16], lengths: NDArray[np.int64]) -> list[Slices]:
    return np.split(rows.astype(np.float32), np.cumsum(lengths)[:-1]) if len(lengths) else []
