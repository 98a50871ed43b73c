"""How a method hears a clip: unit vectors of its windows, cut as the service cuts them."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import onnx
import onnx.utils
import onnxruntime
from numpy.typing import NDArray

from service.audio import Samples, cut
from service.domain.distance import Vectors
from service.encoder import Encoder
from service.manifest import MODEL_FILE
from service.settings import Device


@dataclass(frozen=True)
class Embedded:
    """Windows of clips.

    Attributes:
        vectors: `(windows, dim)`, unit norm.
        clips: `(windows,)`, the number of the clip that each belongs to, rising.
    """

    vectors: Vectors
    clips: NDArray[np.int64]

    @classmethod
    def join(cls, parts: Iterable[Vectors]) -> "Embedded":
        """Put the windows of clip after clip together."""
        rows = list(parts)
        return cls(np.concatenate(rows), np.repeat(np.arange(len(rows)), [len(row) for row in rows]))

    def windows(self) -> list[Vectors]:
        """The windows of each clip."""
        return np.split(self.vectors, np.flatnonzero(np.diff(self.clips)) + 1)


class View(Protocol):
    """Waveform in, unit vectors of its windows out. Safe to call from many threads at once."""

    @property
    def key(self) -> str:
        """What the vectors hang on, beside the waveform."""

    def embed(self, samples: Samples) -> Vectors:
        """`(samples,)` to `(windows, dim)`. Raises `OffkeyError` if the clip is too short."""


class BundleView:
    """The embedding of a bundle, by the service's own encoder."""

    def __init__(self, folder: Path) -> None:
        """Load and check a bundle. Raises `BundleError` as the service does."""
        self.folder = folder
        self.encoder = Encoder(folder, Device.CPU)
        self.key = f"embedding {self.encoder.manifest.model_sha256}"

    def embed(self, samples: Samples) -> Vectors:
        """Embed the windows of a clip."""
        return self.encoder.embed(samples)[0]


class LogmelView:
    """The mean log-mel spectrum over a window without its level: what must be beaten."""

    def __init__(self, bundle: BundleView) -> None:
        """Take the front end out of a bundle's graph."""
        manifest = bundle.encoder.manifest
        self.window = round(manifest.window.seconds * manifest.input.sample_rate)
        self.hop = round(manifest.window.hop_seconds * manifest.input.sample_rate)
        self.key = f"logmel {manifest.model_sha256}"
        whole = onnx.load(str(bundle.folder / MODEL_FILE))
        front_end = onnx.utils.Extractor(whole).extract_model([manifest.input.name], ["logmel"])
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(
            front_end.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )

    def embed(self, samples: Samples) -> Vectors:
        """Mean spectra of the windows of a clip, `(windows, bands)`."""
        rows = []
        for _, window in cut(samples, window=self.window, hop=self.hop):
            logmel = self._session.run(["logmel"], {"waveform": window[None]})[0][0]  # (frames, bands)
            mean = logmel.mean(axis=0)
            mean = mean - mean.mean()
            rows.append(mean / np.linalg.norm(mean))
        return np.stack(rows).astype(np.float32)


def oracle(clean: Embedded, noise: Embedded) -> Embedded:
    """What the paper calls oracle: the mean of the embeddings of a clip and of the noise it is mixed with, apart."""
    mean = clean.vectors.astype(np.float64) + noise.vectors
    mean /= np.maximum(np.linalg.norm(mean, axis=1, keepdims=True), 1e-12)
    return Embedded(mean.astype(np.float32), clean.clips)
