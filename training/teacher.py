"""The frozen copy of the encoder, which hears clean sound and noise apart, and never the same window twice."""

import copy
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from training.data.windows import Window, save_array
from training.student import Student


class Teacher:
    """Unit embeddings of unaugmented windows, cached on disk by teacher, clip and window.

    Gain does not matter to a student, so the embedding of a window serves at every SNR.
    """

    def __init__(self, student: Student, folder: Path, load: Callable[[Sequence[Window]], Tensor]) -> None:
        """Freeze a copy of `student` as it is now.

        Args:
            student: with its read-out already whitened.
            folder: where embeddings are kept.
            load: samples `(batch, samples)` of windows.
        """
        self.network = copy.deepcopy(student).eval().requires_grad_(False)
        self.fingerprint = self.network.fingerprint()
        self.folder = folder / f"teacher-{self.fingerprint[:16]}"
        self.hits = 0
        self.misses = 0
        self._load = load

    def embed(self, windows: Sequence[Window]) -> Tensor:
        """Embeddings `(batch, dim)` of windows of one length."""
        known = {window: self._cached(window) for window in windows}  # a window that comes twice is heard once
        absent = [window for window, row in known.items() if row is None]
        self.hits += len(windows) - len(absent)
        self.misses += len(absent)
        if absent:
            with torch.inference_mode():
                fresh = self.network.read(self._load(absent)).embedding
            for window, row in zip(absent, fresh.cpu().numpy(), strict=True):
                save_array(self._path(window), row)
                known[window] = row
        return torch.from_numpy(np.stack([row for window in windows if (row := known[window]) is not None]))

    def _cached(self, window: Window) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]] | None:
        path = self._path(window)
        return np.load(path) if path.is_file() else None

    def _path(self, window: Window) -> Path:
        return self.folder / window.content[:2] / f"{window.key}.npy"
