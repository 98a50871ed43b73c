"""Caches embeddings on disk by content, so that a sound is embedded once."""

import hashlib
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from offkey import atomic
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
            np.savez(temporary, vectors=embedded.vectors, clips=embedded.clips)

    def load(self, embedder: str, sound: str) -> Embedded:
        """Load cached embeddings. Raises `DataError` if the file is damaged."""
        path = self.path(embedder, sound)
        try:
            # numpy does not close its own handle of a damaged file.
            with path.open("rb") as file, np.load(file, allow_pickle=False) as found:
                return Embedded(found["vectors"], found["clips"])
        except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
            raise DataError(f"{path} is damaged ({error}). Remove it and run again.") from error
