"""Clips decoded and resampled once, cut into windows of one length."""

import os
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from service.audio import AudioLimits, Samples, decode
from service.domain.errors import OffkeyError
from service.manifest import file_sha256
from training.data.catalog import Clip, DataError


@dataclass(frozen=True)
class Window:
    """A stretch of a clip: `length` samples from `start`."""

    clip: Clip
    content: str  # SHA-256 of the clip's file
    start: int
    length: int

    @property
    def key(self) -> str:
        """The same for the same sound, wherever its file lies."""
        return f"{self.content}-{self.start}-{self.length}"


class AudioCache:
    """Decoded waveforms at one rate, kept as memory-mapped arrays below `folder`.

    A clip that cannot be decoded is named in `refused` and left out.
    """

    def __init__(self, folder: Path, sample_rate: int, limits: AudioLimits | None = None) -> None:
        self.folder = folder / f"audio-{sample_rate}"
        self.sample_rate = sample_rate
        self.limits = limits or AudioLimits()
        self.refused: dict[str, str] = {}
        self.contents: dict[Path, str] = {}
        self._open: dict[str, Samples] = {}

    def windows(self, clips: Iterable[Clip], seconds: float) -> tuple[Window, ...]:
        """Cut clips on a grid of `seconds`; what is left at the end of a clip is not heard.

        A clip shorter than that is one window, repeated until it is full. Windows in which nothing sounds are
        left out: no signal-to-noise ratio can be set for them.

        Raises:
            DataError: no clip could be decoded.
        """
        length = round(seconds * self.sample_rate)
        found: list[Window] = []
        for clip in clips:
            content = self._content(clip)
            samples = self._samples(clip, content)
            if samples is None:
                continue
            starts = range(0, max(len(samples) - length, 0) + 1, length)
            found.extend(
                Window(clip, content, start, length) for start in starts if np.any(samples[start : start + length])
            )
        if not found:
            first = next(iter(self.refused.items()), ("", "there are none"))
            raise DataError(f"No clip could be used; the first, {first[0]}: {first[1]}")
        return tuple(found)

    def batch(self, windows: Sequence[Window]) -> Tensor:
        """Samples of windows, `(batch, samples)`; all must have one length."""
        rows = [
            np.resize(self._open[window.content][window.start : window.start + window.length], window.length)
            for window in windows
        ]
        return torch.from_numpy(np.stack(rows))

    def _content(self, clip: Clip) -> str:
        if clip.path not in self.contents:
            self.contents[clip.path] = file_sha256(clip.path)
        return self.contents[clip.path]

    def _samples(self, clip: Clip, content: str) -> Samples | None:
        if content not in self._open:
            path = self.folder / content[:2] / f"{content}.npy"
            if not path.is_file():
                try:
                    wave = decode(clip.path.read_bytes(), sample_rate=self.sample_rate, limits=self.limits)
                except OffkeyError as error:
                    self.refused[clip.name] = error.detail
                    return None
                save_array(path, wave.samples)
            self._open[content] = np.load(path, mmap_mode="r")
        return self._open[content]


def save_array(path: Path, array: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> None:
    """Write a `.npy` so that no reader ever sees half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, suffix=".part")
    try:
        with os.fdopen(descriptor, "wb") as file:
            np.save(file, array)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
