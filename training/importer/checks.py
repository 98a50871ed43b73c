"""Checks a wrapped model in the runtime of the service, and measures its level dependence and time."""

import statistics
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from service.encoder.bundle import WindowSpec
from training.graph import TOLERANCE, ExportError, relative_difference, synthetic_waveforms

LARGEST_DIM = 16_384  # 64 kB per enrolled window
QUIETER_DB = 12.0
LEAK = 0.05  # smallest share of the distance between two sounds at which a change of gain is reported
# Golden vectors must hold on every processor. If the last digit of the input changes, a float32 model changes by less
# than half the first tolerance; a quantized model changes more, by rounding to another step: the second tolerance.
_TOLERANCES = (TOLERANCE, 0.02)
_LAST_DIGIT = 1e-6
_BATCHES = (1, 3)
_SAME = 1e-5  # cosine distance at which all sounds have the same embedding
_UNIT = 1e-4
_ROUNDS = 6  # timing rounds; the first one is a warm-up
_QUIET = 4  # ONNX Runtime prints only fatal errors; exceptions are reported

Outputs = dict[str, NDArray[np.float32]]


@dataclass(frozen=True)
class Findings:
    """Measured figures.

    Attributes:
        gain: largest cosine distance between a clip and itself, 12 dB quieter.
        sounds: smallest cosine distance between two synthetic sounds.
        milliseconds: median time of one window on one CPU thread.
        tolerance: relative tolerance of the golden vectors.
    """

    gain: float
    sounds: float
    milliseconds: float
    tolerance: float

    @property
    def level_leaks(self) -> bool:
        """Whether the gain of a microphone changes scores."""
        return self.gain > LEAK * self.sounds


class Candidate:
    """A model in ONNX Runtime on one CPU thread."""

    def __init__(self, model: Path | bytes, waveform: str) -> None:
        """Open a model. Raises `ExportError` if ONNX Runtime cannot load it."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = _QUIET
        self._waveform = waveform
        try:
            self._session = onnxruntime.InferenceSession(
                model if isinstance(model, bytes) else str(model), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # its errors have no common base
            raise ExportError(f"ONNX Runtime cannot load the model: {_first_line(error)}") from error

    def run(self, waveform: NDArray[np.float32], *outputs: str) -> Outputs:
        """Compute outputs by name for `(batch, samples)`; all outputs by default. Raises `ExportError`."""
        names = list(outputs) or [output.name for output in self._session.get_outputs()]
        try:
            found = self._session.run(names, {self._waveform: waveform})
        except Exception as error:  # as above
            raise ExportError(
                f"The model does not run on a waveform of shape {waveform.shape}: {_first_line(error)}. "
                "Export it with dynamic axes for batch and samples, or change --min-seconds or "
                "--seconds if it has limits."
            ) from error
        return dict(zip(names, found, strict=True))


def embedding_dim(candidate: Candidate, embedding: str, sample_rate: int, window: WindowSpec) -> int:
    """Return the length of the embedding of a model before it is wrapped.

    Raises:
        ExportError: the model does not run, or the output is not `(batch, dim)` in float32.
    """
    waveform = synthetic_waveforms(2, round(window.min_seconds * sample_rate), sample_rate)
    found = candidate.run(waveform, embedding)[embedding]
    if found.dtype != np.float32 or found.ndim != 2 or len(found) != len(waveform):
        raise ExportError(
            f"The output {embedding} is {found.dtype} {found.shape} for 2 clips; an embedding is float32 (2, dim). "
            "Export the model with a dynamic batch axis, and pool over time in it."
        )
    if not 2 <= found.shape[1] <= LARGEST_DIM:
        raise ExportError(f"The embedding has {found.shape[1]} values; from 2 to {LARGEST_DIM:,} are accepted.")
    return int(found.shape[1])


def check(candidate: Candidate, dim: int, sample_rate: int, window: WindowSpec) -> Findings:
    """Check that a wrapped model fulfills the contract of a bundle, and measure it.

    Raises:
        ExportError: the model violates the contract.
    """
    shortest, longest = (round(seconds * sample_rate) for seconds in (window.min_seconds, window.seconds))
    for samples in (shortest, round(1.37 * shortest), (shortest + longest) // 2, longest):
        _check_length(candidate, dim, min(samples, longest), sample_rate)
    _check_extremes(candidate, longest)
    waveform = synthetic_waveforms(3, longest, sample_rate)
    first = candidate.run(waveform, "embedding")["embedding"]
    cosines = first @ first.T
    sounds = float(1 - cosines[~np.eye(len(first), dtype=bool)].max())
    if sounds < _SAME:
        raise ExportError(
            f"The model gives nearly the same embedding for different sounds (cosine distance {sounds:.1e}). Check "
            "--embedding, --sample-rate, and that the weights were loaded before the export."
        )
    quieter = candidate.run(waveform * np.float32(10 ** (-QUIETER_DB / 20)), "embedding")["embedding"]
    gain = float((1 - (first * quieter).sum(axis=1)).max())
    return Findings(max(gain, 0.0), sounds, _time(candidate, waveform[:1]), _tolerance(candidate, waveform))


def _check_length(candidate: Candidate, dim: int, samples: int, sample_rate: int) -> None:
    """Check batches of one length: shapes, finite values, unit norm, and independence of the rows."""
    for batch in _BATCHES:
        waveform = synthetic_waveforms(batch, samples, sample_rate)
        outputs = candidate.run(waveform)
        case = f"a batch of {batch}, {samples / sample_rate:g} s each"
        embedding = outputs["embedding"]
        if embedding.shape != (batch, dim):
            raise ExportError(f"The embedding is {embedding.shape} for {case}; it must be {(batch, dim)}.")
        _require_finite(outputs, case)
        alone = candidate.run(waveform[-1:], "embedding")["embedding"]
        difference = relative_difference(embedding[-1:], alone)
        if not difference <= TOLERANCE:
            _require_repeatable(candidate, waveform, embedding)
            raise ExportError(
                f"The embedding of a clip of {samples / sample_rate:g} s changes by {difference:.1e} of its largest "
                f"value with the clips in its batch; {TOLERANCE:g} is allowed. Export the model in evaluation mode "
                "(model.eval()), without quantization by the range of the batch."
            )


def _require_repeatable(candidate: Candidate, waveform: NDArray[np.float32], embedding: NDArray[np.float32]) -> None:
    again = candidate.run(waveform, "embedding")["embedding"]
    if not relative_difference(embedding, again) <= TOLERANCE:
        raise ExportError(
            "The model gives other embeddings for the same clips when it runs again. Export it in evaluation mode "
            "(model.eval()): dropout or another random operator is still in it."
        )


def _check_extremes(candidate: Candidate, samples: int) -> None:
    loud = np.sign(np.sin(np.arange(samples, dtype=np.float32)))[None]
    click = np.zeros_like(loud)
    click[0, samples // 2] = 1.0
    for case, waveform in (("silence", np.zeros_like(loud)), ("a full-scale square wave", loud), ("a click", click)):
        _require_finite(candidate.run(waveform), case)


def _require_finite(outputs: Outputs, case: str) -> None:
    for name, values in outputs.items():
        if not np.isfinite(values).all():
            raise ExportError(
                f"The {name} has NaN or infinite values for {case}. Put a floor under logarithms, divisions and norms "
                "in the model."
            )
    norms = np.linalg.norm(outputs["embedding"], axis=1)
    if not np.all(np.abs(norms - 1) < _UNIT):
        raise ExportError(
            f"The embedding cannot be brought to unit norm in float32 for {case}: its values are too large or too "
            "small. Scale it in the model."
        )


def _time(candidate: Candidate, waveform: NDArray[np.float32]) -> float:
    spent = []
    for _ in range(_ROUNDS):
        begin = time.perf_counter()
        candidate.run(waveform)
        spent.append(1000 * (time.perf_counter() - begin))
    return statistics.median(spent[1:])


def _tolerance(candidate: Candidate, waveform: NDArray[np.float32]) -> float:
    noise = np.random.default_rng(0).standard_normal(waveform.shape)
    shaken = candidate.run((waveform * (1 + _LAST_DIGIT * noise)).astype(np.float32))
    outputs = candidate.run(waveform)
    moved = max(relative_difference(outputs[name], shaken[name]) for name in outputs)
    for tolerance in _TOLERANCES:
        if moved <= tolerance / 2:
            return tolerance
    raise ExportError(
        f"Noise of {_LAST_DIGIT:g} on the waveform moves the outputs by {moved:.1e} of their largest value, so that no "
        f"other processor could check them; {_TOLERANCES[-1] / 2:g} is allowed."
    )


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
