"""Runs the encoder of a model bundle in ONNX Runtime, after checking that it is what its manifest says."""

import ctypes
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from service.audio import Samples, cut
from service.budget import UNLIMITED, Budget
from service.domain.distance import Vectors
from service.domain.errors import ErrorKind, OffkeyError
from service.domain.spectrogram import Spectrogram, band_edges, coarse
from service.index import check_vectors
from service.manifest import GOLDEN_FILE, MODEL_FILE, BundleError, Manifest, load_manifest
from service.settings import Device

logger = logging.getLogger(__name__)

_CUDA = "CUDAExecutionProvider"
_CPU = "CPUExecutionProvider"
_LOG_FATAL_ONLY = 4


class DeviceError(Exception):
    """The device that was asked for cannot be used."""


class Heard(NamedTuple):
    """A clip as the encoder hears it, window by window."""

    vectors: Vectors  # (windows, dim), unit norm
    starts: NDArray[np.float64]  # (windows,) seconds
    spectrograms: tuple[Spectrogram, ...]  # of the windows; none where `band_edges_hz` is None


class Encoder:
    """Windows of a clip in, unit embeddings out. Safe to call from many threads at once.

    Attributes:
        manifest: of the bundle.
        provider: the ONNX Runtime provider in use.
        band_edges_hz: where the bands of its spectrograms meet, `(bands + 1,)`; None: the bundle gives no log-mel
            spectrogram whose frequencies are known.
    """

    def __init__(self, bundle: Path, device: Device) -> None:
        """Load a bundle and hold it against its golden vectors.

        Raises:
            BundleError: a file is absent or damaged, or the graph does not give what the manifest promises.
            DeviceError: `cuda` was asked for and does not work here.
        """
        self.manifest: Manifest = load_manifest(bundle)
        self._session = _open_session(bundle / MODEL_FILE, device)
        self.provider: str = self._session.get_providers()[0]
        _check_golden(self._session, self.manifest, bundle)
        self.band_edges_hz = _band_edges(self.manifest)
        logger.info("bundle %s/%s runs on %s", self.manifest.name, self.manifest.version, self.provider)

    @property
    def name(self) -> str:
        """Name and version of the bundle."""
        return f"{self.manifest.name}/{self.manifest.version}"

    @property
    def embedding_space_id(self) -> str:
        """Two banks are comparable only where it is equal."""
        return self.manifest.embedding_space_id

    @property
    def sample_rate(self) -> int:
        """Rate of the waveforms it takes, Hz."""
        return self.manifest.input.sample_rate

    def close(self) -> None:
        """Give the model's memory back. FastAPI remembers applications that are over, and what belongs to them."""
        del self._session

    def embed(self, samples: Samples, budget: Budget = UNLIMITED) -> tuple[Vectors, NDArray[np.float64]]:
        """The embeddings and starts that `hear` gives, which see."""
        heard = self.hear(samples, budget)
        return heard.vectors, heard.starts

    def hear(self, samples: Samples, budget: Budget = UNLIMITED) -> Heard:
        """Embed a clip, and take the picture of each window that localization works on.

        Args:
            samples: `(samples,)` mono at `sample_rate`.
            budget: of the request, which is asked before each window whether to go on.

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
        windows = cut(samples, window=round(spec.seconds * rate), hop=round(spec.hop_seconds * rate))
        # One window at a time: on a CPU a batch is no faster, and memory stays that of one window.
        found, spectrograms = [], []
        wanted = ["embedding"] if self.band_edges_hz is None else ["embedding", "logmel"]
        for _, window in windows:
            budget.check()
            vector, *logmel = self._session.run(wanted, {"waveform": window[None, :]})  # (1, dim), (1, frames, mels)
            found.append(vector)
            spectrograms += [coarse(one[0], len(window) / rate) for one in logmel]
        vectors = np.concatenate(found)
        starts = np.array([start / rate for start, _ in windows])
        return Heard(check_vectors(vectors, dim=self.manifest.dim), starts, tuple(spectrograms))


def _band_edges(manifest: Manifest) -> NDArray[np.float64] | None:
    for output in manifest.outputs:
        if output.name == "logmel" and output.centers_hz is not None:
            # The highest band may reach beyond what the sample rate can hold.
            return np.minimum(band_edges(np.array(output.centers_hz)), manifest.input.sample_rate / 2)
    return None


def _open_session(model: Path, device: Device) -> ort.InferenceSession:
    options = ort.SessionOptions()
    # Requests run side by side, one thread each, which serves more clips than one request on every core.
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    wanted = [_CPU]
    if device is not Device.CPU and _CUDA in ort.get_available_providers():
        wanted = [_CUDA, _CPU]
    if device is Device.AUTO:
        # Without a GPU the runtime reports the missing CUDA libraries as an error, which here is no error.
        ort.set_default_logger_severity(_LOG_FATAL_ONLY)
    session = ort.InferenceSession(str(model), options, providers=wanted)
    # The runtime lists providers it was built with and falls back in silence: only the session knows.
    if device is Device.CUDA and session.get_providers()[0] != _CUDA:
        raise DeviceError(
            f"OFFKEY_DEVICE=cuda, but the model runs on {session.get_providers()[0]}: {_cuda_problem()} "
            "Install the NVIDIA driver, CUDA and cuDNN that onnxruntime names, or set OFFKEY_DEVICE=cpu."
        )
    return session


def _cuda_problem() -> str:
    if _CUDA not in ort.get_available_providers():
        return "this onnxruntime was built without CUDA (onnxruntime-gpu has it)."
    library = Path(ort.__file__).parent / "capi" / "libonnxruntime_providers_cuda.so"
    try:
        ctypes.CDLL(str(library))
    except OSError as error:
        return f"{error}."
    return "no usable GPU was found."


def _check_golden(session: ort.InferenceSession, manifest: Manifest, bundle: Path) -> None:
    names = [spec.name for spec in manifest.outputs]
    missing = set(names) - {output.name for output in session.get_outputs()}
    if missing or manifest.input.name not in {value.name for value in session.get_inputs()}:
        raise BundleError(f"The graph of {bundle} lacks {sorted(missing) or [manifest.input.name]}.")
    with np.load(bundle / GOLDEN_FILE, allow_pickle=False) as golden:
        found: Sequence[NDArray[np.float32]] = session.run(names, {manifest.input.name: golden["waveform"]})
        for spec, array in zip(manifest.outputs, found, strict=True):
            expected = golden[spec.name]
            if array.shape != expected.shape:
                raise BundleError(
                    f"{bundle} gives {spec.name} of shape {array.shape}, its golden vectors have {expected.shape}."
                )
            error = float(np.abs(array - expected).max() / np.abs(expected).max())
            if not error <= manifest.golden.tolerance:
                raise BundleError(
                    f"{bundle} does not reproduce its golden vectors here: {spec.name} is off by {error:.2g} of "
                    f"its largest value, {manifest.golden.tolerance:g} is allowed. Export it again, or report "
                    "the processor and the onnxruntime version."
                )
