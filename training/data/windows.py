"""Decodes and resamples clips once, and cuts them into windows of one length."""

import os
import tempfile
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from offkey.errors import OffkeyError
from service.audio.decode import AudioLimits, Samples, decode
from service.encoder.bundle import file_sha256
from training.data.catalog import Clip, DataError
from training.data.channels import UnreadableError, read_clip

_OPEN = 512  # open memory maps; the kernel allows a process about 65,000


@dataclass(frozen=True)
class Window:
    """A segment of a clip: `length` samples from `start`."""

    clip: Clip
    content: str  # SHA-256 of the clip's file, with the channel if one is selected
    start: int
    length: int

    @property
    def key(self) -> str:
        """Key by content, independent of the path of the file."""
        return f"{self.content}-{self.start}-{self.length}"


class AudioCache:
    """Decoded waveforms at one rate, stored as memory-mapped arrays below `folder`.

    A clip that cannot be decoded is left out; `refused` has the reason.
    """

    def __init__(self, folder: Path, sample_rate: int, limits: AudioLimits | None = None) -> None:
        self.folder = folder / f"audio-{sample_rate}"
        self.sample_rate = sample_rate
        self.limits = limits or AudioLimits()
        self.refused: dict[str, str] = {}
        self.contents: dict[Path, str] = {}
        self._open: OrderedDict[str, Samples] = OrderedDict()

    def windows(self, clips: Iterable[Clip], seconds: float) -> tuple[Window, ...]:
        """Cut clips into windows of `seconds`; the remainder at the end of a clip is dropped.

        Clips are hashed and decoded on all cores. A clip shorter than `seconds` is repeated to fill one window. Silent
        windows are left out, because no signal-to-noise ratio can be set for them.

        Raises:
            DataError: no clip could be decoded.
        """
        length = round(seconds * self.sample_rate)
        found: list[Window] = []
        clips = tuple(clips)
        with ThreadPoolExecutor(os.cpu_count()) as pool:  # the decoder and the hash release the GIL
            for clip, own in zip(clips, pool.map(lambda clip: self._cut(clip, length), clips), strict=True):
                if isinstance(own, str):
                    self.refused[clip.name] = own
                else:
                    found.extend(own)
        if not found:
            first = next(iter(self.refused.items()), ("", "no clips were given"))
            raise DataError(f"No clip could be used; the first is {first[0]}: {first[1]}")
        return tuple(found)

    def batch(self, windows: Sequence[Window]) -> Tensor:
        """Load the samples `(batch, samples)` of windows of one length."""
        found = torch.empty(len(windows), windows[0].length)
        for row, window in zip(found.numpy(), windows, strict=True):
            samples = self._samples(window.content)[window.start : window.start + window.length]
            row[:] = samples if len(samples) == window.length else np.resize(samples, window.length)
        return found

    def __getstate__(self) -> dict[str, Any]:
        """Drop open maps, which would be copied to a worker process as samples."""
        return {**vars(self), "_open": OrderedDict()}

    def _cut(self, clip: Clip, length: int) -> list[Window] | str:
        """Cut a clip into windows, or return the reason why it cannot be used."""
        try:
            content = self._content(clip)
            samples = self._cached(content)
            if samples is None:
                data = read_clip(clip.path, clip.channel, self.limits)
                samples = decode(data, sample_rate=self.sample_rate, limits=self.limits).samples
                save_array(self._path(content), samples)
        except OffkeyError as error:
            return error.detail
        except UnreadableError as error:
            return str(error)
        starts = range(0, max(len(samples) - length, 0) + 1, length)
        return [Window(clip, content, start, length) for start in starts if _varies(samples[start : start + length])]

    def _content(self, clip: Clip) -> str:
        try:
            digest = self.contents.get(clip.path) or file_sha256(clip.path)
        except OSError as error:
            raise UnreadableError(f"The file cannot be read ({error.strerror}).") from error
        self.contents[clip.path] = digest
        return digest if clip.channel is None else f"{digest}-{clip.channel}"

    def _path(self, content: str) -> Path:
        return self.folder / content[:2] / f"{content}.npy"

    def _cached(self, content: str) -> Samples | None:
        path = self._path(content)
        if not path.is_file():
            return None
        try:
            samples: Samples = np.load(path, mmap_mode="r")
        except (ValueError, EOFError):  # truncated, for example by a full disk: decoded again
            return None
        return samples

    def _samples(self, content: str) -> Samples:
        samples = self._open.pop(content, None)
        if samples is None:
            samples = self._cached(content)
            if samples is None:
                raise DataError(f"{self._path(content)} is missing or damaged. Start again to decode the clip again.")
        self._open[content] = samples  # most recently used last
        if len(self._open) > _OPEN:
            self._open.popitem(last=False)
        return samples


def _varies(samples: Samples) -> bool:
    """Return whether the samples are not constant; a constant offset is silence."""
    return bool(np.any(samples != samples[:1]))


def save_array(path: Path, array: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> None:
    """Write a `.npy` file of a cache atomically.

    It is not flushed to disk, because a cache is filled at every step and its readers detect truncated files.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, suffix=".part")
    try:
        with os.fdopen(descriptor, "wb") as file:
            np.save(file, array)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
