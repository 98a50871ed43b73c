"""The frozen network that hears clean sound and noise apart, and never the same window twice."""

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
    """What a teacher asks."""

    @property
    def fingerprint(self) -> str:
        """The same for what gives the same vectors."""

    def vectors(self, waveform: Tensor) -> Vectors:
        """Vectors of `(batch, samples)`, each `(batch, ..., dim)`."""

    def tensors(self) -> dict[str, Tensor]:
        """What a checkpoint must hold so that the same network can be made again."""


class FrozenStudent:
    """A copy of a student as it is now: whiten it before."""

    def __init__(
        self, student: Student, level: Level, space: Space = "unit", *, half: bool, keep: bool = False
    ) -> None:
        """Freeze it.

        Args:
            student: is copied.
            level: of the vectors.
            space: of the vectors, as `Student.hear`.
            half: as `Student.hear`.
            keep: put the projection into checkpoints. It is there already where `student` is the one that learns.
        """
        self.student = copy.deepcopy(student).eval().requires_grad_(False)
        self.level: Level = level
        self.space: Space = space
        self.half = half
        self.keep = keep
        self.fingerprint = self.student.fingerprint() + ("-bfloat16" if half else "")

    def vectors(self, waveform: Tensor) -> Vectors:
        """As `Network.vectors`."""
        with torch.inference_mode():
            return self.student.embed(waveform, self.level, self.space, half=self.half).vectors

    @property
    def dim(self) -> int:
        """Length of an embedding."""
        return self.student.dim

    def tensors(self) -> dict[str, Tensor]:
        """As `Network.tensors`."""
        whitening = self.student.readout.whitening.state_dict() if self.keep else {}
        return {PROJECTION + name: value for name, value in whitening.items()}


class Bundle:
    """The graph of a model bundle in ONNX Runtime. It has embeddings to give, no gradients and no centered grids."""

    def __init__(self, folder: Path, sample_rate: int, seconds: float, threads: int) -> None:
        """Load it.

        Raises:
            BundleError: a file is absent or damaged.
            ConfigError: it takes another sample rate, or longer clips.
        """
        manifest = load_manifest(folder)
        if manifest.input.sample_rate != sample_rate:
            raise ConfigError(
                f"The teacher {folder} takes {manifest.input.sample_rate} Hz, the student {sample_rate} Hz. "
                "Choose an encoder of the same rate."
            )
        if seconds < manifest.window.min_seconds:
            raise ConfigError(
                f"`data.window_seconds` is {seconds:g}, but {folder} needs {manifest.window.min_seconds:g} s at least."
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
        """As `Network.vectors`."""
        samples = waveform.cpu().numpy()
        parts = np.split(samples, len(samples)) if self._one_by_one else [samples]
        found = [self._session.run(["embedding"], {"waveform": part})[0] for part in parts]
        return (torch.from_numpy(np.concatenate(found)).to(waveform.device),)

    def tensors(self) -> dict[str, Tensor]:
        """Nothing: the graph holds all."""
        return {}


class Teacher:
    """Vectors of unaugmented windows, kept on disk by teacher, level, clip and window.

    Gain does not matter to a student, so what it hears in a window serves at every SNR. Whole token grids are not
    kept: one of a 10 s window takes 1.5 MB per layer of a base transformer, half a thousand times its embedding.
    """

    def __init__(self, network: Network, folder: Path, level: Level, space: Space = "unit") -> None:
        self.network = network
        kind = level if space == "unit" else f"{level}-{space}"
        self.folder = folder / f"teacher-{network.fingerprint[:16]}{network.fingerprint[64:]}-{kind}"
        self.keeps = level != "token"
        self.hits = 0
        self.misses = 0

    def vectors(self, windows: Sequence[Window], waveform: Tensor) -> Vectors:
        """Vectors `(batch, ..., dim)` of windows of one length, and on the device of their samples.

        Args:
            windows: what is heard, `batch` of them.
            waveform: their samples, `(batch, samples)`.
        """
        if not self.keeps:
            self.misses += len(windows)
            return self.network.vectors(waveform)
        # A window that comes twice is heard once.
        known: dict[Window, list[NDArray[np.float32]] | None] = {window: self._cached(window) for window in windows}
        absent = [window for window, found in known.items() if found is None]
        self.misses += len(absent)
        self.hits += len(windows) - len(absent)
        if absent:
            fresh = self.network.vectors(waveform[[windows.index(window) for window in absent]])
            for row, window in enumerate(absent):
                layers = known[window] = [each[row].cpu().numpy() for each in fresh]
                for layer in reversed(range(len(layers))):  # the first comes last: where it is, all are
                    save_array(self._path(window, layer), layers[layer])
        rows = [found for window in windows if (found := known[window]) is not None]
        return tuple(torch.from_numpy(np.stack(each)).to(waveform.device) for each in zip(*rows, strict=True))

    def _cached(self, window: Window) -> list[NDArray[np.float32]] | None:
        found: list[NDArray[np.float32]] = []
        while (path := self._path(window, len(found))).is_file():
            try:
                found.append(np.load(path))
            except (ValueError, EOFError):  # cut short when the machine went down, say
                return None
        return found or None

    def _path(self, window: Window, layer: int) -> Path:
        return self.folder / window.content[:2] / f"{window.key}-{layer}.npy"
