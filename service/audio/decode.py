"""Audio files in, mono waveforms at one sample rate out.

Headers lie (a 7 MB FLAC can hold hours, a header can promise 2^36 frames), so nothing is allocated by what
a header says: frames are read in blocks and counted, and reading stops at the limit.
"""

import io
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from offkey.errors import ErrorKind, OffkeyError
from service.audio.budget import UNLIMITED, Budget
from service.audio.wav_headers import stated

Samples = NDArray[np.float32]

FORMATS = frozenset({"WAV", "WAVEX", "RF64", "W64", "FLAC", "OGG", "MP3", "AIFF", "CAF"})

_BLOCK_FRAMES = 65_536
FULL_SCALE = 0.99  # the largest sample of 8 bits is 127/128
_UNSTATED_FRAMES = 2**63 - 1  # libsndfile's word for a length that the header leaves open


@dataclass(frozen=True)
class AudioLimits:
    """What a clip may be. Seconds are counted on decoded frames, not read from a header."""

    min_sample_rate: int = 2_000  # Hz
    max_sample_rate: int = 384_000  # Hz
    max_channels: int = 16
    max_seconds: float = 600.0
    max_peak: float = 100.0  # full scale is 1; 40 dB over it no recorder means what it writes
    silence_dbfs: float = -90.0  # RMS around the mean; below it a microphone is off, not quiet

    def fixed(self) -> dict[str, int | float]:
        """The limits that no setting changes, as `GET /info` reports them."""
        return {name: value for name, value in asdict(self).items() if name != "max_seconds"}


@dataclass(frozen=True)
class Waveform:
    """A decoded clip: mono `samples` of shape `(samples,)` at `sample_rate` Hz, and what the file had."""

    samples: Samples
    sample_rate: int
    source_sample_rate: int
    source_channels: int
    source_clipped: float

    @property
    def seconds(self) -> float:
        """Duration in seconds."""
        return len(self.samples) / self.sample_rate


@dataclass(frozen=True)
class Source:
    """What the file of a clip had: its rate in Hz, its channels, and the share of its samples at full scale."""

    sample_rate: int
    channels: int
    clipped: float


def decode(data: bytes, *, sample_rate: int, limits: AudioLimits, budget: Budget = UNLIMITED) -> Waveform:
    """Decode a whole audio file, average its channels and resample it. Arguments and errors: `decode_blocks`."""
    blocks: list[Samples] = [np.zeros(0, dtype=np.float32)]
    source = decode_blocks(data, blocks.append, sample_rate=sample_rate, limits=limits, budget=budget)
    return Waveform(np.concatenate(blocks), sample_rate, source.sample_rate, source.channels, source.clipped)


def decode_blocks(
    data: bytes,
    take: Callable[[Samples], object],
    *,
    sample_rate: int,
    limits: AudioLimits,
    budget: Budget = UNLIMITED,
) -> Source:
    """Decode an audio file and hand it on block by block, so that the clip is nowhere held as a whole.

    Args:
        data: the bytes of a WAV, FLAC, OGG (Vorbis or Opus), MP3, AIFF or CAF file.
        take: is given the mono blocks `(samples,)` at `sample_rate`, in order. They are the clip only if no error
            follows them.
        sample_rate: the rate wanted, Hz.
        limits: what is accepted.
        budget: what the request that the clip came in may still decode.

    Raises:
        OffkeyError: empty, not audio, cut off, a rate, channel count, length or peak outside the limits, NaN or
            infinite samples, or silence; or the budget is spent.
    """
    if not data:
        raise OffkeyError(ErrorKind.EMPTY_AUDIO, "The clip has no bytes. Send an audio file as the body.")
    _check_stated(data, limits)
    level, clipping = _Level(), _Clipping()
    try:
        with _Stream(io.BytesIO(data)) as file:
            _check_header(file, limits)
            # Below the model's rate it is the resampled audio that costs.
            price = max(file.channels, sample_rate / file.samplerate)
            blocks = _mono_blocks(file, limits, budget, price, clipping)
            for block in _resampled(blocks, int(file.samplerate), sample_rate):
                level.add(block)
                take(block)
            source = Source(int(file.samplerate), int(file.channels), clipping.share)
    except (soundfile.SoundFileError, MemoryError, ValueError, TypeError) as error:
        raise OffkeyError(
            ErrorKind.UNDECODABLE_AUDIO,
            f"The clip is not audio that can be decoded ({_reason(error)}). "
            "Send WAV, FLAC, OGG (Vorbis or Opus), MP3, AIFF or CAF.",
        ) from error
    level.check_audible(limits)
    return source


def mixed(block: Samples) -> Samples:
    """The mean `(frames,)` of the channels of a block `(frames, channels)`. By column: numpy is slow on short rows."""
    total: Samples = block[:, 0]
    for channel in range(1, block.shape[1]):
        total = total + block[:, channel]
    return total if block.shape[1] == 1 else total / np.float32(block.shape[1])


def clipped(block: Samples) -> int:
    """How many samples are at full scale."""
    if max(block.max(), -block.min()) < FULL_SCALE:
        return 0
    return int(np.count_nonzero(np.abs(block) >= FULL_SCALE))


class _Level:
    """The RMS of a clip around its mean, from its blocks."""

    def __init__(self) -> None:
        self._samples = 0
        self._sum = self._squares = 0.0

    def add(self, block: Samples) -> None:
        exact = block.astype(np.float64)
        self._samples += len(exact)
        self._sum += float(exact.sum())
        self._squares += float(exact @ exact)

    def check_audible(self, limits: AudioLimits) -> None:
        if self._samples == 0:
            raise OffkeyError(ErrorKind.EMPTY_AUDIO, "The clip has a header but no audio frames. Record it again.")
        # Float64 leaves 1e-15 of the offset's square, the silence of -90 dBFS squared is 1e-9.
        variance = self._squares / self._samples - (self._sum / self._samples) ** 2
        if variance < 10 ** (limits.silence_dbfs / 10):
            raise OffkeyError(
                ErrorKind.SILENT_AUDIO,
                f"The clip is silent (below {limits.silence_dbfs:g} dBFS). Check that the microphone is on.",
            )


class _Clipping:
    """The share of samples at full scale, from blocks of all channels."""

    def __init__(self) -> None:
        self._samples = self._clipped = 0

    def add(self, block: Samples) -> None:
        self._samples += block.size
        self._clipped += clipped(block)

    @property
    def share(self) -> float:
        return self._clipped / max(self._samples, 1)


# soundfile has no types, so to mypy its class is `Any`.
class _Stream(soundfile.SoundFile):  # type: ignore[misc]
    """A file that is only read forward: seeking fails in a FLAC whose header leaves its length open."""

    def seekable(self) -> bool:
        return False


def _mono_blocks(
    file: soundfile.SoundFile, limits: AudioLimits, budget: Budget, price: float, clipping: _Clipping
) -> Iterator[Samples]:
    """Read forward in blocks `(frames,)`; pay `price` for each frame; check each block before it goes on."""
    frames = 0
    max_frames = int(limits.max_seconds * file.samplerate)
    while len(block := _read(file, frames)):  # (frames, channels)
        budget.spend(len(block) * price)
        frames += len(block)
        if frames > max_frames:
            raise OffkeyError(
                ErrorKind.CLIP_TOO_LONG,
                f"The clip is longer than {limits.max_seconds:g} s. Cut it into shorter clips.",
                max_seconds=limits.max_seconds,
            )
        with np.errstate(over="ignore", invalid="ignore"):  # infinities are refused, not warned of
            mono = mixed(block)
            peak = max(mono.max(), -mono.min()) if np.isfinite(mono).all() else np.inf
        if not np.isfinite(peak):
            raise OffkeyError(
                ErrorKind.NON_FINITE_AUDIO,
                "The clip holds NaN or infinite samples. Check the recorder's float conversion.",
            )
        if peak > limits.max_peak:
            raise OffkeyError(
                ErrorKind.OUT_OF_RANGE_AUDIO,
                f"The clip holds a sample of {peak:.4g}, where full scale is 1. Floating-point files that hold "
                "integers, such as -32768 to 32767, must be divided by their full scale first.",
                peak=float(peak),
                max_peak=limits.max_peak,
            )
        clipping.add(block)
        yield mono
    if _stated_frames(file) > frames:
        raise _truncated(file, frames)


def _read(file: soundfile.SoundFile, frames: int) -> Samples:
    """Read the next block `(frames, channels)`; `frames` came before it."""
    try:
        block: Samples = file.read(_BLOCK_FRAMES, dtype="float32", always_2d=True)
    except soundfile.SoundFileError:
        # The FLAC decoder has one word for damage and for an early end: here all bytes were read.
        if _stated_frames(file) > frames and not file.name.read(1):
            raise _truncated(file, frames) from None
        raise
    return block


def _stated_frames(file: soundfile.SoundFile) -> int:
    """Frames that the header promises, or 0. Only FLAC states its length exactly, or not at all."""
    return file.frames if file.format == "FLAC" and file.frames != _UNSTATED_FRAMES else 0


def _truncated(file: soundfile.SoundFile, frames: int) -> OffkeyError:
    return OffkeyError(
        ErrorKind.TRUNCATED_AUDIO,
        f"The clip breaks off: its header states {file.frames} frames. Send the whole file again.",
        frames=frames,
    )


def _resampled(blocks: Iterable[Samples], source_rate: int, sample_rate: int) -> Iterator[Samples]:
    """The blocks at another rate."""
    if source_rate == sample_rate:
        yield from blocks
        return
    stream = soxr.ResampleStream(source_rate, sample_rate, num_channels=1, dtype="float32", quality="HQ")
    for block in blocks:
        yield stream.resample_chunk(block)
    yield stream.resample_chunk(np.zeros(0, dtype=np.float32), last=True)


def _check_header(file: soundfile.SoundFile, limits: AudioLimits) -> None:
    if file.format not in FORMATS:
        raise OffkeyError(
            ErrorKind.UNDECODABLE_AUDIO,
            f"The clip is in the format {file.format}, which is not accepted. "
            "Send WAV, FLAC, OGG (Vorbis or Opus), MP3, AIFF or CAF.",
        )
    _check_rate(file.samplerate, limits)
    if file.channels > limits.max_channels:
        raise OffkeyError(
            ErrorKind.TOO_MANY_CHANNELS,
            f"The clip has {file.channels} channels; at most {limits.max_channels} are accepted.",
            channels=file.channels,
        )


def _check_stated(data: bytes, limits: AudioLimits) -> None:
    # libsndfile takes what there is of a file that breaks off, and has no word for a rate that it cannot hold.
    header = stated(data)
    if header.sample_rate is not None:
        _check_rate(header.sample_rate, limits)
    if header.missing:
        raise OffkeyError(
            ErrorKind.TRUNCATED_AUDIO,
            f"The clip breaks off: its header states {header.missing} bytes of audio that did not come. Send the "
            "whole file again.",
            missing_bytes=header.missing,
        )


def _check_rate(sample_rate: int, limits: AudioLimits) -> None:
    if not limits.min_sample_rate <= sample_rate <= limits.max_sample_rate:
        raise OffkeyError(
            ErrorKind.UNSUPPORTED_SAMPLE_RATE,
            f"The clip's header says {sample_rate} Hz; accepted are {limits.min_sample_rate} to "
            f"{limits.max_sample_rate} Hz.",
            sample_rate=sample_rate,
        )


def _reason(error: BaseException) -> str:
    text = getattr(error, "error_string", None) or str(error) or type(error).__name__
    return str(text).strip().rstrip(".")


def cut(samples: Samples, *, window: int, hop: int) -> list[tuple[int, Samples]]:
    """Cut a clip into full windows; the last one ends with the clip.

    Args:
        samples: `(samples,)`.
        window: window length in samples.
        hop: distance of window starts in samples.

    Returns:
        `(start, samples)` of each window, in order. A clip no longer than `window` is one window, unpadded.
    """
    last = len(samples) - window
    if last <= 0:
        return [(0, samples)]
    starts = [*range(0, last, hop), last]
    return [(start, samples[start : start + window]) for start in starts]
