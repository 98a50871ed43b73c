"""Embedders of clips: unit vectors of windows that are cut as in the service."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple, Protocol

import numpy as np
import onnx
import onnx.helper
import onnx.utils
import onnxruntime
from numpy.typing import NDArray

from service.audio.decode import Samples, cut
from service.domain.distance import Vectors
from service.domain.enrolled import Piece
from service.domain.lengths import window_seconds
from service.domain.slices import Slices
from service.encoder.bundle import MODEL_FILE
from service.encoder.encoder import Encoder
from service.encoder.pieces import embed_pieces
from service.encoder.session import CPU, DeviceError, open_session
from service.settings import Device
from training.config import ConfigError

_IR, _OPSET = 8, 17  # versions of the graph that tests a device; every runtime reads them


class ClipEmbedding(NamedTuple):
    """Everything that a bank or a score takes from one clip.

    Attributes:
        vectors: vectors of the windows, of unit norm, `(windows, dim)`.
        ends: time from the start of the clip to the end of each window, in seconds; empty if unknown.
        slices: slices of each window; empty if the embedder has none.
        pieces: variants and cuts; empty unless the clip is enrolled.
        window_seconds: length of windows that are not the bundle's own; 0 for its own.
    """

    vectors: Vectors
    ends: NDArray[np.float64] = np.empty(0)
    slices: tuple[Slices, ...] = ()
    pieces: tuple[Piece, ...] = ()
    window_seconds: float = 0.0


@dataclass(frozen=True)
class Embedded:
    """Embeddings of clips.

    Attributes:
        vectors: vectors of unit norm, `(windows, dim)`.
        clips: index of the clip of each window, `(windows,)`, ascending.
        ends: time from the start of the clip to the end of each window, in seconds; empty if unknown.
        slices: slices of each window; empty if the embedder has none.
        pieces: variants and cuts of the clips, each with the index of its clip.
        window_seconds: length of the windows of each clip that are not the bundle's own, 0 for its own; `(clips,)`.
    """

    vectors: Vectors
    clips: NDArray[np.int64]
    ends: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))
    slices: tuple[Slices, ...] = ()
    pieces: tuple[tuple[int, Piece], ...] = ()
    window_seconds: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))

    @classmethod
    def join(cls, parts: Iterable[ClipEmbedding | Vectors]) -> "Embedded":
        """Concatenate the windows of clips."""
        clips = [part if isinstance(part, ClipEmbedding) else ClipEmbedding(part) for part in parts]
        return cls(
            np.concatenate([clip.vectors for clip in clips]),
            np.repeat(np.arange(len(clips)), [len(clip.vectors) for clip in clips]),
            np.concatenate([clip.ends for clip in clips]),
            tuple(one for clip in clips for one in clip.slices),
            tuple((number, piece) for number, clip in enumerate(clips) for piece in clip.pieces),
            np.array([clip.window_seconds for clip in clips]),
        )

    def split(self) -> list[ClipEmbedding]:
        """Return the windows of each clip, without pieces."""
        edges = [0, *(np.flatnonzero(np.diff(self.clips)) + 1).tolist(), len(self.clips)]
        windows = self.window_seconds.tolist() or [0.0] * (len(edges) - 1)
        return [
            ClipEmbedding(self.vectors[low:high], self.ends[low:high], self.slices[low:high], (), window)
            for (low, high), window in zip(pairwise(edges), windows, strict=True)
        ]

    def windows(self) -> list[Vectors]:
        """Split the vectors by clip."""
        return [clip.vectors for clip in self.split()]


class Embedder(Protocol):
    """Embeds the windows of a waveform. Thread-safe."""

    @property
    def key(self) -> str:
        """Key of everything that determines the vectors except the waveform."""

    def embed(self, samples: Samples, enrolled: int | None = None, longest: float = 0.0) -> ClipEmbedding:
        """Embed a clip.

        Args:
            samples: waveform, `(samples,)`.
            enrolled: number of clips of the domain that are enrolled before this one; None for a clip to score.
            longest: duration of the longest enrolled clip, in seconds, for a clip to score; 0 if unknown.

        Raises:
            OffkeyError: the clip is too short.
        """


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

    def embed(self, samples: Samples, enrolled: int | None = None, longest: float = 0.0) -> ClipEmbedding:
        """Embed a clip as the service does."""
        seconds = len(samples) / self.encoder.sample_rate
        window = window_seconds(seconds, longest, self.encoder.manifest.window.seconds)
        found = self.encoder.embed(samples, window_seconds=window)
        pieces = () if enrolled is None else embed_pieces(self.encoder, samples, found.starts, enrolled)
        ends = found.starts + seconds - found.starts[-1]
        return ClipEmbedding(found.vectors, ends, found.slices, pieces, window)


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

    def embed(self, samples: Samples, enrolled: int | None = None, longest: float = 0.0) -> ClipEmbedding:
        """Compute the mean spectra of the windows of a clip, `(windows, bands)`."""
        del enrolled, longest
        rows = []
        for logmel in self._windows(samples):  # (frames, bands)
            mean = logmel.mean(axis=0)
            mean = mean - mean.mean()
            rows.append(mean / np.linalg.norm(mean))
        return ClipEmbedding(np.stack(rows).astype(np.float32))


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

    def embed(self, samples: Samples, enrolled: int | None = None, longest: float = 0.0) -> ClipEmbedding:
        """Compute the concatenated unit vectors of the bands, scaled to unit norm: `(windows, bands * dim)`."""
        del enrolled, longest
        rows = []
        for frames in self._windows(samples):  # (time, bands, dim)
            mean = frames.mean(axis=0)
            mean /= np.maximum(np.linalg.norm(mean, axis=1, keepdims=True), 1e-12)
            rows.append(mean.ravel() / np.sqrt(self.bands))
        return ClipEmbedding(np.stack(rows).astype(np.float32))

    def parts(self, embedded: Embedded) -> list[Embedded]:
        """Split embeddings by band, each `(windows, dim)` of unit norm."""
        of_bands = np.split(embedded.vectors * np.float32(np.sqrt(self.bands)), self.bands, axis=1)
        return [Embedded(np.ascontiguousarray(one), embedded.clips) for one in of_bands]


def oracle(clean: Embedded, noise: Embedded) -> Embedded:
    """Compute the oracle of the paper: the mean of the embeddings of a clip and of its noise."""
    mean = clean.vectors.astype(np.float64) + noise.vectors
    mean /= np.maximum(np.linalg.norm(mean, axis=1, keepdims=True), 1e-12)
    return Embedded(mean.astype(np.float32), clean.clips)
