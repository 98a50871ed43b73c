"""How a method hears a clip: unit vectors of its windows, cut as the service cuts them."""

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

_IR, _OPSET = 8, 17  # of the graph that a device is tried with: any runtime reads it


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
    """The embedding of a bundle, by the service's own encoder.

    Attributes:
        folder: of the bundle.
        encoder: that is run.
        on_cpu: whether it runs on the CPU, which `auto` falls back to.
    """

    def __init__(self, folder: Path, device: Device = Device.CPU) -> None:
        """Load and check a bundle. Raises `BundleError` as the service does, and `ConfigError` as `check_device`."""
        self.folder = folder
        with _device_errors():
            self.encoder = Encoder(folder, device)
        self.on_cpu = self.encoder.provider == CPU
        self.key = f"embedding {self.encoder.manifest.model_sha256}"
        if not self.on_cpu:  # another device rounds otherwise
            self.key += f" {self.encoder.provider}"

    def embed(self, samples: Samples) -> Vectors:
        """Embed the windows of a clip."""
        return self.encoder.embed(samples)[0]


def check_device(device: Device) -> None:
    """Run a small graph on a device. Raises `ConfigError` if it ends up on another."""
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
    """Name the key of an experiment where the service names its setting."""
    try:
        yield
    except DeviceError as error:
        raise ConfigError(str(error).replace("OFFKEY_DEVICE", "device")) from error


class _PartView:
    """A bundle's graph up to another of its outputs than the embedding, on the CPU."""

    def __init__(self, bundle: BundleView, output: str) -> None:
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


class LogmelView(_PartView):
    """The mean log-mel spectrum over a window without its level: what must be beaten."""

    def __init__(self, bundle: BundleView) -> None:
        """Take the front end out of a bundle's graph."""
        super().__init__(bundle, "logmel")

    def embed(self, samples: Samples) -> Vectors:
        """Mean spectra of the windows of a clip, `(windows, bands)`."""
        rows = []
        for logmel in self._windows(samples):  # (frames, bands)
            mean = logmel.mean(axis=0)
            mean = mean - mean.mean()
            rows.append(mean / np.linalg.norm(mean))
        return np.stack(rows).astype(np.float32)


class BandsView(_PartView):
    """The mean of a bundle's `frames` over time, for each of its places along frequency by itself.

    Attributes:
        bands: places along frequency.
    """

    def __init__(self, bundle: BundleView) -> None:
        """Take the graph up to `frames`. Raises `ValueError` if they have no frequency axis."""
        super().__init__(bundle, "frames")
        dims = {output.name: output.dims for output in bundle.encoder.manifest.outputs}["frames"]
        if len(dims) != 4:
            raise ValueError(f"the frames of {bundle.folder} are {dims}: they have no frequency axis")
        self.bands = int(dims[2])

    def embed(self, samples: Samples) -> Vectors:
        """`(windows, bands * dim)`: unit vectors of the bands one after another, together of unit norm."""
        rows = []
        for frames in self._windows(samples):  # (time, bands, dim)
            mean = frames.mean(axis=0)
            mean /= np.maximum(np.linalg.norm(mean, axis=1, keepdims=True), 1e-12)
            rows.append(mean.ravel() / np.sqrt(self.bands))
        return np.stack(rows).astype(np.float32)

    def parts(self, heard: Embedded) -> list[Embedded]:
        """What `embed` gave, band by band, each `(windows, dim)` of unit norm."""
        of_bands = np.split(heard.vectors * np.float32(np.sqrt(self.bands)), self.bands, axis=1)
        return [Embedded(np.ascontiguousarray(one), heard.clips) for one in of_bands]


def oracle(clean: Embedded, noise: Embedded) -> Embedded:
    """What the paper calls oracle: the mean of the embeddings of a clip and of the noise it is mixed with, apart."""
    mean = clean.vectors.astype(np.float64) + noise.vectors
    mean /= np.maximum(np.linalg.norm(mean, axis=1, keepdims=True), 1e-12)
    return Embedded(mean.astype(np.float32), clean.clips)
