"""Runs the encoder of a model bundle in ONNX Runtime, after checking it against the manifest."""

import logging
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from offkey.errors import ErrorKind, OffkeyError
from service.audio.budget import UNLIMITED, Budget
from service.audio.decode import Samples, cut
from service.domain.distance import Vectors
from service.domain.slices import Slices, sliced
from service.domain.spectrogram import Spectrogram, band_edges, downsampled
from service.domain.vectors import check_vectors
from service.encoder.batching import BatchingRunner
from service.encoder.bundle import GOLDEN_FILE, MODEL_FILE, BundleError, Manifest, OutputSpec, load_manifest
from service.encoder.per_thread import PerThreadRunner
from service.encoder.runner import Runner
from service.encoder.session import open_session, runs_on_cpu
from service.encoder.threads import SINGLE, ThreadCounts, faint_noise, find_thread_counts
from service.settings import Device

logger = logging.getLogger(__name__)

_BATCH_SECONDS = 320.0  # audio in one batch on a GPU


class Embedding(NamedTuple):
    """Embedding of a clip, window by window."""

    vectors: Vectors  # (windows, dim), unit norm
    starts: NDArray[np.float64]  # (windows,) seconds
    spectrograms: tuple[Spectrogram, ...]  # one per window; empty if `band_edges_hz` is None
    slices: tuple[Slices, ...]  # one per window; empty if the bundle has no frames


class Encoder:
    """Embeds clips. Safe to call from many threads at once.

    Attributes:
        manifest: manifest of the bundle.
        provider: ONNX Runtime provider in use.
        band_edges_hz: edges of the bands of a spectrogram, `(bands + 1,)`. None if the bundle has no log-mel output
            with known frequencies.
    """

    def __init__(
        self, bundle: Path, device: Device, *, thread_counts: Path | ThreadCounts = SINGLE, engines: Path | None = None
    ) -> None:
        """Load a bundle and check it against its golden vectors.

        Args:
            bundle: folder of the bundle.
            device: device to run on.
            thread_counts: threads of one run on a CPU, or the file that caches the measured counts.
            engines: folder for the engines that TensorRT builds.

        Raises:
            BundleError: a file is absent or damaged, or the graph does not match the manifest.
            DeviceError: `cuda` or `tensorrt` is required and does not work here.
        """
        self.manifest: Manifest = load_manifest(bundle)
        self._runner = _open_runner(self.manifest, bundle, device, thread_counts, engines)
        self.provider: str = self._runner.provider
        self.band_edges_hz = _band_edges(self.manifest)
        outputs = {output.name for output in self.manifest.outputs}
        self._wanted = (
            "embedding",
            *(["logmel"] if self.band_edges_hz is not None else []),
            *(["frames"] if "frames" in outputs else []),
        )
        logger.info("bundle %s/%s runs on %s", self.manifest.name, self.manifest.version, self.provider)

    @property
    def name(self) -> str:
        """Return the name and version of the bundle."""
        return f"{self.manifest.name}/{self.manifest.version}"

    @property
    def embedding_space_id(self) -> str:
        """Return the id of the embedding space. Banks are comparable only if it is equal."""
        return self.manifest.embedding_space_id

    @property
    def workers(self) -> int:
        """Return the number of concurrent requests that keeps the device busy."""
        return self._runner.workers

    @property
    def sample_rate(self) -> int:
        """Return the sample rate of input waveforms, Hz."""
        return self.manifest.input.sample_rate

    def close(self) -> None:
        """Release the memory of the model. FastAPI keeps references to closed applications and all they refer to."""
        self._runner.close()

    def embed(self, samples: Samples, budget: Budget = UNLIMITED, window_seconds: float = 0.0) -> Embedding:
        """Embed a clip, and compute the spectrograms and slices of its windows.

        Args:
            samples: mono waveform at `sample_rate`, `(samples,)`.
            budget: budget of the request, checked before each window.
            window_seconds: length of the windows that the clip is cut into without overlap, in seconds; 0 for the
                windows of the bundle.

        Raises:
            OffkeyError: the clip is shorter than the model's minimum, or the service is stopping.
        """
        spec, rate = self.manifest.window, self.sample_rate
        if len(samples) < round(spec.min_seconds * rate):
            raise OffkeyError(
                ErrorKind.CLIP_TOO_SHORT,
                f"The clip lasts {len(samples) / rate:.3f} s; the model needs at least {spec.min_seconds:g} s.",
                seconds=round(len(samples) / rate, 3),
                min_seconds=spec.min_seconds,
            )
        size, hop = round(spec.seconds * rate), round(spec.hop_seconds * rate)
        if window_seconds:
            size = hop = max(round(window_seconds * rate), round(spec.min_seconds * rate))
        windows = cut(samples, window=size, hop=hop)
        found, spectrograms, slices = [], [], []
        # (1, dim), (1, frames, mels), (1, time, [freq,] dim)
        outputs = self._runner.run([window for _, window in windows], list(self._wanted), budget)
        for (_, window), arrays in zip(windows, outputs, strict=True):
            named = dict(zip(self._wanted, arrays, strict=True))
            found.append(named["embedding"])
            if "logmel" in named:
                spectrograms.append(downsampled(named["logmel"][0], len(window) / rate))
            if "frames" in named:
                slices.append(sliced(named["frames"][0], len(window) / rate))
        vectors = np.concatenate(found)
        starts = np.array([start / rate for start, _ in windows])
        return Embedding(check_vectors(vectors, dim=self.manifest.dim), starts, tuple(spectrograms), tuple(slices))


def _band_edges(manifest: Manifest) -> NDArray[np.float64] | None:
    for output in manifest.outputs:
        if output.name == "logmel" and output.centers_hz is not None:
            # The highest band may extend beyond the sound that is used.
            return np.minimum(band_edges(np.array(output.centers_hz)), manifest.input.highest_hz)
    return None


def _open_runner(
    manifest: Manifest, bundle: Path, device: Device, thread_counts: Path | ThreadCounts, engines: Path | None
) -> Runner:
    model = bundle / MODEL_FILE
    session = open_session(model, device, engines=engines)
    _check_golden(session, manifest, bundle)
    if not runs_on_cpu(session):
        # Activations of int8 are scaled by the whole batch, so each window runs alone.
        seconds = 0.0 if manifest.precision == "int8" else _BATCH_SECONDS
        return BatchingRunner(session, round(seconds * manifest.input.sample_rate))
    if isinstance(thread_counts, Path):
        window = faint_noise(manifest.window.seconds, manifest.input.sample_rate)
        thread_counts = find_thread_counts(
            partial(open_session, model, Device.CPU), window, manifest.model_sha256, thread_counts
        )
    sessions = {1: session}
    for threads in {thread_counts.busy_threads, thread_counts.idle_threads} - {1}:
        sessions[threads] = open_session(model, Device.CPU, threads)
        _check_golden(sessions[threads], manifest, bundle)
    return PerThreadRunner(sessions[thread_counts.busy_threads], sessions[thread_counts.idle_threads], thread_counts)


def _check_golden(session: ort.InferenceSession, manifest: Manifest, bundle: Path) -> None:
    names = [spec.name for spec in manifest.outputs]
    missing = set(names) - {output.name for output in session.get_outputs()}
    if missing or manifest.input.name not in {value.name for value in session.get_inputs()}:
        raise BundleError(f"The graph of {bundle} lacks {sorted(missing) or [manifest.input.name]}.")
    with np.load(bundle / GOLDEN_FILE, allow_pickle=False) as golden:
        absent = {*names, manifest.input.name} - set(golden.files)
        if absent:
            raise BundleError(f"{bundle / GOLDEN_FILE} has no {', '.join(sorted(absent))}. Export the bundle again.")
        found: Sequence[NDArray[np.float32]] = session.run(names, {manifest.input.name: golden["waveform"]})
        for spec, array in zip(manifest.outputs, found, strict=True):
            expected = golden[spec.name]
            _check_shape(spec, array.shape, expected.shape, bundle)
            error = float(np.abs(array - expected).max() / np.abs(expected).max())
            if not error <= manifest.golden.tolerance:
                raise BundleError(
                    f"{bundle} does not reproduce its golden vectors here: {spec.name} differs by {error:.2g} of "
                    f"its largest value, {manifest.golden.tolerance:g} is allowed. Export it again, or report "
                    "the processor and the onnxruntime version."
                )
        try:
            check_vectors(found[names.index("embedding")], manifest.dim)
        except ValueError as error:
            raise BundleError(f"{bundle} computes embeddings that cannot be compared: {error}.") from error


def _check_shape(spec: OutputSpec, shape: tuple[int, ...], golden: tuple[int, ...], bundle: Path) -> None:
    if shape != golden:
        raise BundleError(f"{bundle} computes {spec.name} of shape {shape}, but its golden vectors have {golden}.")
    fits = len(shape) == len(spec.dims) and all(
        isinstance(named, str) or named == size for named, size in zip(spec.dims, shape, strict=True)
    )
    if not fits:
        raise BundleError(f"{bundle} computes {spec.name} of shape {shape}, but its manifest has {spec.dims}.")
