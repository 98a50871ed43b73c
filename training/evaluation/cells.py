"""Embeddings kept on disk as they are made, by content: what was heard once is not heard again."""

import hashlib
import os
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from training.data.catalog import DataError
from training.evaluation.views import Embedded


@dataclass(frozen=True)
class Cells:
    """A folder of cells: what one view makes of one sound of one machine."""

    folder: Path

    def path(self, view: str, sound: str) -> Path:
        """Where a cell is, by the keys of its view and its sound."""
        name = hashlib.sha256(f"{view}\n{sound}".encode()).hexdigest()
        return self.folder / name[:2] / f"{name}.npz"

    def has(self, view: str, sound: str) -> bool:
        """Is it there?"""
        return self.path(view, sound).is_file()

    def save(self, view: str, sound: str, embedded: Embedded) -> None:
        """Write a cell, whole or not at all."""
        path = self.path(view, sound)
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=".writing-")
        try:
            with os.fdopen(descriptor, "wb") as file:
                np.savez(file, vectors=embedded.vectors, clips=embedded.clips)
                file.flush()
                os.fsync(file.fileno())
            Path(temporary).replace(path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise

    def load(self, view: str, sound: str) -> Embedded:
        """Read a cell that is there. Raises `DataError` if it is damaged."""
        path = self.path(view, sound)
        try:
            # Of a damaged file numpy would leave its own handle open.
            with path.open("rb") as file, np.load(file, allow_pickle=False) as found:
                return Embedded(found["vectors"], found["clips"])
        except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
            raise DataError(f"{path} is damaged ({error}). Remove it and run again.") from error
