"""The frozen teacher: embeds clean sound and noise separately, and caches the vectors of each window."""

import copy
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray
from torch import Tensor

from service.encoder.bundle import MODEL_FILE, load_manifest
from training.config import ConfigError
from training.data.windows import Window, save_array
from training.student import Level, Space, Student, Vectors

PROJECTION = "teacher.student.readout.whitening."  # prefix of a teacher's projection in a checkpoint


class Network(Protocol):
    """The network of a teacher."""

    @property
    def fingerprint(self) -> str:
        """Equal fingerprints mean equal vectors."""

    @property
    def dim(self) -> int:
        """Length of an embedding."""

    def vectors(self, waveform: Tensor) -> Vectors:
        """Embed waveforms `(batch, samples)` as vectors, each `(batch, ..., dim)`."""

    def tensors(self) -> dict[str, Tensor]:
        """Return the tensors from which a resumed run restores the network."""


class FrozenStudent:
    """A frozen copy of a whitened student."""

    def __init__(
        self, student: Student, level: Level, space: Space = "unit", *, half: bool, save_projection: bool = False
    ) -> None:
        """Copy a student and freeze the copy.

        Args:
            student: student to copy.
            level: level of the vectors, as in `Student.embed`.
            space: space of the vectors, as in `Student.embed`.
            half: whether layers run in bfloat16, as in `Student.embed`.
            save_projection: whether checkpoints get the projection; a copy of the trained student needs none.
        """
        self.student = copy.deepcopy(student).eval().requires_grad_(False)
        self.level: Level = level
        self.space: Space = space
        self.half = half
        self.save_projection = save_projection
        self.fingerprint = self.student.fingerprint() + ("-bfloat16" if half else "")

    def vectors(self, waveform: Tensor) -> Vectors:
        """Embed waveforms, as `Network.vectors`."""
        with torch.inference_mode():
            return self.student.embed(waveform, self.level, self.space, half=self.half).vectors

    @property
    def dim(self) -> int:
        """Length of an embedding."""
        return self.student.dim

    def tensors(self) -> dict[str, Tensor]:
        """Return the projection if it is to be saved, as `Network.tensors`."""
        whitening = self.student.readout.whitening.state_dict() if self.save_projection else {}
        return {PROJECTION + name: value for name, value in whitening.items()}


class Bundle:
    """The graph of a model bundle in ONNX Runtime: embeddings only, no gradients and no grids."""

    def __init__(self, folder: Path, sample_rate: int, seconds: float, threads: int) -> None:
        """Load a bundle.

        Args:
            folder: folder of the bundle.
            sample_rate: sample rate of the student, in Hz.
            seconds: length of a training window.
            threads: CPU threads of the model runtime.

        Raises:
            BundleError: a file is missing or damaged.
            ConfigError: the bundle takes another sample rate, or longer clips.
        """
        manifest = load_manifest(folder)
        if manifest.input.sample_rate != sample_rate:
            raise ConfigError(
                f"The teacher {folder} takes {manifest.input.sample_rate} Hz, the student {sample_rate} Hz. "
                "Choose an encoder of the same rate."
            )
        if seconds < manifest.window.min_seconds:
            raise ConfigError(
                f"`data.window_seconds` is {seconds:g}, but {folder} needs at least {manifest.window.min_seconds:g} s."
            )
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        self._session = onnxruntime.InferenceSession(
            str(folder / MODEL_FILE), options, providers=["CPUExecutionProvider"]
        )
        self.dim = manifest.dim
        self._one_by_one = manifest.precision == "int8"
        self.fingerprint = hashlib.sha256(manifest.model_sha256.encode()).hexdigest()

    def vectors(self, waveform: Tensor) -> Vectors:
        """Embed waveforms, as `Network.vectors`."""
        samples = waveform.cpu().numpy()
        parts = np.split(samples, len(samples)) if self._one_by_one else [samples]
        found = [self._session.run(["embedding"], {"waveform": part})[0] for part in parts]
        return (torch.from_numpy(np.concatenate(found)).to(waveform.device),)

    def tensors(self) -> dict[str, Tensor]:
        """Return nothing: the bundle has all weights."""
        return {}


class Teacher:
    """Embeds unaugmented windows, and caches the vectors on disk by teacher, level, clip and window.

    An embedding does not depend on the gain, so one vector per window serves every SNR. Whole token grids are not
    cached: the grid of a 10 s window takes 1.5 MB per layer of a base transformer, about 500 times its embedding.
    """

    def __init__(self, network: Network, folder: Path, level: Level, space: Space = "unit") -> None:
        self.network = network
        kind = level if space == "unit" else f"{level}-{space}"
        self.folder = folder / f"teacher-{network.fingerprint[:16]}{network.fingerprint[64:]}-{kind}"
        self.caches = level != "token"
        self.hits = 0
        self.misses = 0

    def vectors(self, windows: Sequence[Window], waveform: Tensor) -> Vectors:
        """Return vectors `(batch, ..., dim)` of windows of one length, on the device of their samples.

        Args:
            windows: `batch` windows.
            waveform: their samples, `(batch, samples)`.
        """
        if not self.caches:
            self.misses += len(windows)
            return self.network.vectors(waveform)
        # A window that is in the batch twice is embedded once.
        cached: dict[Window, list[NDArray[np.float32]] | None] = {window: self._cached(window) for window in windows}
        missing = [window for window, found in cached.items() if found is None]
        self.misses += len(missing)
        self.hits += len(windows) - len(missing)
        if missing:
            fresh = self.network.vectors(waveform[[windows.index(window) for window in missing]])
            for row, window in enumerate(missing):
                layers = cached[window] = [each[row].cpu().numpy() for each in fresh]
                for layer in reversed(range(len(layers))):  # layer 0 is written last: if it exists, all layers do
                    save_array(self._path(window, layer), layers[layer])
        rows = [found for window in windows if (found := cached[window]) is not None]
        return tuple(torch.from_numpy(np.stack(each)).to(waveform.device) for each in zip(*rows, strict=True))

    def _cached(self, window: Window) -> list[NDArray[np.float32]] | None:
        found: list[NDArray[np.float32]] = []
        while (path := self._path(window, len(found))).is_file():
            try:
                found.append(np.load(path))
            except (ValueError, EOFError):  # truncated, for example by a crash
                return None
        return found or None

    def _path(self, window: Window, layer: int) -> Path:
        return self.folder / window.content[:2] / f"{window.key}-{layer}.npy"
