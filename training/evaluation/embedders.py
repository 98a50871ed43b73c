"""Embedders of clips: unit vectors of windows that are cut as in the service."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Protocol

import numpy as np
import onnx
import onnx.helper
import onnx.utils
import onnxruntime
from numpy.typing import NDArray

from service.audio.decode import Samples, cut
from service.domain.distance import Vectors
from service.encoder.bundle import MODEL_FILE
from service.encoder.encoder import Encoder
from service.encoder.session import CPU, DeviceError, open_session
from service.settings import Device
from training.config import ConfigError

_IR, _OPSET = 8, 17  # versions of the graph that tests a device; every runtime reads them


@dataclass(frozen=True)
class Embedded:
    """Embeddings of the windows of clips.

    Attributes:
        vectors: vectors of unit norm, `(windows, dim)`.
        clips: index of the clip of each window, `(windows,)`, ascending.
    """

    vectors: Vectors
    clips: NDArray[np.int64]

    @classmethod
    def join(cls, parts: Iterable[Vectors]) -> "Embedded":
        """Concatenate the windows of clips."""
        rows = list(parts)
        return cls(np.concatenate(rows), np.repeat(np.arange(len(rows)), [len(row) for row in rows]))

    def windows(self) -> list[Vectors]:
        """Split the vectors by clip."""
        return np.split(self.vectors, np.flatnonzero(np.diff(self.clips)) + 1)


class Embedder(Protocol):
    """Computes unit vectors of the windows of a waveform. Thread-safe."""

    @property
    def key(self) -> str:
        """Key of everything that determines the vectors except the waveform."""

    def embed(self, samples: Samples) -> Vectors:
        """Embed `(samples,)` as `(windows, dim)`. Raises `OffkeyError` if the clip is too short."""


class BundleEmbedder:
    """The embedding of a bundle, computed by the service's encoder.

    Attributes:
        folder: folder of the bundle.
        encoder: encoder of the service.
        on_cpu: whether the encoder runs on the CPU, which is the fallback of `auto`.
    """

    def __init__(self, folder: Path, device: Device = Device.CPU) -> None:
        """Load and check a bundle. Raises `BundleError` as the service does, and `ConfigError` as `check_device`."""
        self.folder = folder
        with _device_errors():
            self.encoder = Encoder(folder, device)
        self.on_cpu = self.encoder.provider == CPU
        self.key = f"embedding {self.encoder.manifest.model_sha256}"
        if not self.on_cpu:  # another device rounds differently
            self.key += f" {self.encoder.provider}"

    def embed(self, samples: Samples) -> Vectors:
        """Embed the windows of a clip."""
        return self.encoder.embed(samples)[0]


def check_device(device: Device) -> None:
    """Run a small graph on a device. Raises `ConfigError` if it runs on another device."""
    value = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1])
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Identity", ["x"], ["y"])],
        "check",
        [value],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1])],
    )
    model = onnx.helper.make_model(graph, ir_version=_IR, opset_imports=[onnx.helper.make_opsetid("", _OPSET)])
    with TemporaryDirectory() as folder, _device_errors():
        path = Path(folder, MODEL_FILE)
        onnx.save(model, str(path))
        open_session(path, device)


@contextmanager
def _device_errors() -> Iterator[None]:
    """Raise device errors of the service as errors of the config key."""
    try:
        yield
    except DeviceError as error:
        raise ConfigError(str(error).replace("OFFKEY_DEVICE", "device")) from error


class _GraphEmbedder:
    """A bundle's graph up to an output other than the embedding, on the CPU."""

    def __init__(self, bundle: BundleEmbedder, output: str) -> None:
        manifest = bundle.encoder.manifest
        self.window = round(manifest.window.seconds * manifest.input.sample_rate)
        self.hop = round(manifest.window.hop_seconds * manifest.input.sample_rate)
        self.key = f"{output} {manifest.model_sha256}"
        self._output = output
        whole = onnx.load(str(bundle.folder / MODEL_FILE))
        part = onnx.utils.Extractor(whole).extract_model([manifest.input.name], [output])
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(
            part.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )

    def _windows(self, samples: Samples) -> Iterator[NDArray[np.float32]]:
        for _, window in cut(samples, window=self.window, hop=self.hop):
            yield self._session.run([self._output], {"waveform": window[None]})[0][0]


class LogmelEmbedder(_GraphEmbedder):
    """The mean log-mel spectrum of a window without its level: the baseline."""

    def __init__(self, bundle: BundleEmbedder) -> None:
        """Extract the front end from a bundle's graph."""
        super().__init__(bundle, "logmel")

    def embed(self, samples: Samples) -> Vectors:
        """Compute the mean spectra of the windows of a clip, `(windows, bands)`."""
        rows = []
        for logmel in self._windows(samples):  # (frames, bands)
            mean = logmel.mean(axis=0)
            mean = mean - mean.mean()
            rows.append(mean / np.linalg.norm(mean))
        return np.stack(rows).astype(np.float32)


class BandsEmbedder(_GraphEmbedder):
    """The mean of a bundle's `frames` over time, separately for each position along frequency.

    Attributes:
        bands: number of positions along frequency.
    """

    def __init__(self, bundle: BundleEmbedder) -> None:
        """Extract the graph up to `frames`. Raises `ValueError` if they have no frequency axis."""
        super().__init__(bundle, "frames")
        dims = {output.name: output.dims for output in bundle.encoder.manifest.outputs}["frames"]
        if len(dims) != 4:
            raise ValueError(f"the frames of {bundle.folder} are {dims}: they have no frequency axis")
        self.bands = int(dims[2])

    def embed(self, samples: Samples) -> Vectors:
        """Compute the concatenated unit vectors of the bands, scaled to unit norm: `(windows, bands * dim)`."""
        rows = []
        for frames in self._windows(samples):  # (time, bands, dim)
            mean = frames.mean(axis=0)
            mean /= np.maximum(np.linalg.norm(mean, axis=1, keepdims=True), 1e-12)
            rows.append(mean.ravel() / np.sqrt(self.bands))
        return np.stack(rows).astype(np.float32)

    def parts(self, embedded: Embedded) -> list[Embedded]:
        """Split embeddings by band, each `(windows, dim)` of unit norm."""
        of_bands = np.split(embedded.vectors * np.float32(np.sqrt(self.bands)), self.bands, axis=1)
        return [Embedded(np.ascontiguousarray(one), embedded.clips) for one in of_bands]


def oracle(clean: Embedded, noise: Embedded) -> Embedded:
    """Compute the oracle of the paper: the mean of the embeddings of a clip and of its noise."""
    mean = clean.vectors.astype(np.float64) + noise.vectors
    mean /= np.maximum(np.linalg.norm(mean, axis=1, keepdims=True), 1e-12)
    return Embedded(mean.astype(np.float32), clean.clips)
