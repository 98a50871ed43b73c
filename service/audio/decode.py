"""Decodes audio files to mono waveforms at one sample rate, in this process.

Headers are not trusted: a 7 MB FLAC can hold hours, and a header can declare 2^36 frames. Frames are read in blocks and
counted, and reading stops at the limit. No allocation depends on a header. The service decodes through `decoder.py`,
which runs this module in a child process.
"""

import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from offkey.errors import ErrorKind, OffkeyError
from service.audio.budget import UNLIMITED, Budget
from service.audio.wav_headers import read_headers

Samples = NDArray[np.float32]

FORMATS = frozenset({"WAV", "WAVEX", "RF64", "W64", "FLAC", "OGG", "MP3", "AIFF", "CAF"})

_BLOCK_FRAMES = 65_536
FULL_SCALE = 0.99  # the largest 8-bit sample is 127/128
_LOSSLESS = ("PCM_", "FLOAT", "DOUBLE", "ALAC")  # beginnings of libsndfile's names
_PLAINLY_CANCELED_DB = 20.0
_TINY = 1e-12  # power of -120 dBFS
_UNKNOWN_FRAMES = 2**63 - 1  # libsndfile's value for a length that the header leaves open


@dataclass(frozen=True)
class AudioLimits:
    """Limits of a clip. The duration is counted in decoded frames, not read from a header."""

    min_sample_rate: int = 2_000  # Hz
    max_sample_rate: int = 384_000  # Hz
    max_channels: int = 16
    max_seconds: float = 600.0
    max_peak: float = 100.0  # full scale is 1; a sample 40 dB above it is a scaling error
    silence_dbfs: float = -90.0  # RMS around the mean; below it the microphone is off

    def fixed(self) -> dict[str, int | float]:
        """Return the limits that are not settings, for `GET /info`."""
        return {name: value for name, value in asdict(self).items() if name != "max_seconds"}


@dataclass(frozen=True)
class Waveform:
    """Decoded clip: mono `samples` `(samples,)` at `sample_rate` Hz, and properties of the file as in `Source`."""

    samples: Samples
    sample_rate: int
    source_sample_rate: int
    source_channels: int
    source_clipped: float
    source_canceled_db: float = 0.0
    source_out_of_band: float = 0.0
    source_codec: str = ""

    @property
    def seconds(self) -> float:
        """Return the duration in seconds."""
        return len(self.samples) / self.sample_rate


@dataclass(frozen=True)
class Source:
    """Properties of a file.

    Attributes:
        sample_rate: sample rate, Hz.
        channels: number of channels.
        clipped: share of samples at full scale, 0 to 1.
        canceled_db: level of the channels over the level of their mean. It is 0 for equal channels and 3 for two
            independent ones; channels of opposite polarity have more.
        out_of_band: share of the power above half the output sample rate, 0 to 1.
        codec: name of the lossy codec, empty if the samples are stored without loss.
    """

    sample_rate: int
    channels: int
    clipped: float
    canceled_db: float
    out_of_band: float
    codec: str


def decode(data: bytes, *, sample_rate: int, limits: AudioLimits, budget: Budget = UNLIMITED) -> Waveform:
    """Decode an audio file, average its channels and resample it. For arguments and errors see `decode_blocks`."""
    blocks: list[Samples] = [np.zeros(0, dtype=np.float32)]
    source = decode_blocks(data, blocks.append, sample_rate=sample_rate, limits=limits, budget=budget)
    return Waveform(
        np.concatenate(blocks),
        sample_rate,
        source.sample_rate,
        source.channels,
        source.clipped,
        source.canceled_db,
        source.out_of_band,
        source.codec,
    )


def decode_blocks(
    data: bytes,
    take: Callable[[Samples], object],
    *,
    sample_rate: int,
    limits: AudioLimits,
    budget: Budget = UNLIMITED,
) -> Source:
    """Decode an audio file block by block, so the whole clip is never in memory.

    Args:
        data: bytes of a WAV, FLAC, OGG (Vorbis or Opus), MP3, AIFF or CAF file.
        take: callback for each mono block `(samples,)` at `sample_rate`, in order. The blocks are valid only if no
            error follows.
        sample_rate: output sample rate, Hz.
        limits: limits of a clip.
        budget: budget of the request.

    Returns:
        Properties of the file.

    Raises:
        OffkeyError: the clip is empty, silent, truncated or not audio; its rate, channels, length or peak exceed the
            limits; it has NaN or infinite samples; or the budget is spent.
    """
    if not data:
        raise OffkeyError(ErrorKind.EMPTY_AUDIO, "The clip has no bytes. Send an audio file as the body.")
    _check_declared(data, limits)
    level, mix, clipping = _Level(), _Mix(), _Clipping()
    try:
        with _Stream(io.BytesIO(data)) as file:
            _check_header(file, limits)
            # Below the model's rate the resampled audio determines the cost.
            price = max(file.channels, sample_rate / file.samplerate)
            blocks = _mono_blocks(file, limits, budget, price, mix, clipping)
            for block in _resampled(blocks, int(file.samplerate), sample_rate):
                level.add(block)
                take(block)
            source_rate = int(file.samplerate)
            out_of_band = mix.share_without(level.variance) if source_rate > sample_rate else 0.0
            codec = "" if file.subtype.startswith(_LOSSLESS) else file.subtype.lower().replace("_", "-")
            source = Source(source_rate, int(file.channels), clipping.share, mix.canceled_db, out_of_band, codec)
    except (soundfile.SoundFileError, MemoryError, ValueError, TypeError) as error:
        raise OffkeyError(
            ErrorKind.UNDECODABLE_AUDIO,
            f"The clip is not audio that can be decoded ({_reason(error)}). "
            "Send WAV, FLAC, OGG (Vorbis or Opus), MP3, AIFF or CAF.",
        ) from error
    level.check_audible(limits, source.canceled_db)
    return source


def mixed(block: Samples) -> Samples:
    """Average the channels of a block `(frames, channels)`. Returns `(frames,)`.

    The loop adds column by column because numpy is slow on short rows.
    """
    total: Samples = block[:, 0]
    for channel in range(1, block.shape[1]):
        total = total + block[:, channel]
    return total if block.shape[1] == 1 else total / np.float32(block.shape[1])


def clipped(block: Samples) -> int:
    """Count the samples at full scale."""
    if max(block.max(), -block.min()) < FULL_SCALE:
        return 0
    return int(np.count_nonzero(np.abs(block) >= FULL_SCALE))


def canceled_db(channels: Sequence[float], mean: float) -> float:
    """Compute the level of channels over that of their mean, in dB, from their powers. 0 for one channel or silence."""
    power = sum(channels) / len(channels) if channels else 0.0
    return float(10 * np.log10(power / max(mean, _TINY))) if power > _TINY else 0.0


class _Level:
    """RMS of a clip around its mean, accumulated from blocks."""

    def __init__(self) -> None:
        self._samples = 0
        self._sum = self._squares = 0.0

    def add(self, block: Samples) -> None:
        exact = block.astype(np.float64)
        self._samples += len(exact)
        self._sum += float(exact.sum())
        self._squares += float(exact @ exact)

    @property
    def variance(self) -> float:
        """Power about the mean."""
        # Float64 is exact to 1e-15 of the squared offset; silence of -90 dBFS is 1e-9.
        return max(self._squares / self._samples - (self._sum / self._samples) ** 2, 0.0) if self._samples else 0.0

    def check_audible(self, limits: AudioLimits, canceled_db: float) -> None:
        if self._samples == 0:
            raise OffkeyError(ErrorKind.EMPTY_AUDIO, "The clip has a header but no audio frames. Record it again.")
        if self.variance < 10 ** (limits.silence_dbfs / 10):
            if canceled_db > _PLAINLY_CANCELED_DB:
                raise OffkeyError(
                    ErrorKind.SILENT_AUDIO,
                    "The channels cancel each other: they have opposite polarity, so their mean is silent. Wire one "
                    "channel the other way round, or send one channel.",
                )
            raise OffkeyError(
                ErrorKind.SILENT_AUDIO,
                f"The clip is silent (below {limits.silence_dbfs:g} dBFS). Check that the microphone is on.",
            )


class _Mix:
    """Power of the channels and of their mean, accumulated from blocks."""

    def __init__(self) -> None:
        self._mono = _Level()
        self._channels: list[_Level] = []

    def add(self, block: Samples, mono: Samples) -> None:
        self._mono.add(mono)
        if block.shape[1] > 1:
            self._channels = self._channels or [_Level() for _ in range(block.shape[1])]
            for level, channel in zip(self._channels, block.T, strict=True):
                level.add(channel)

    @property
    def canceled_db(self) -> float:
        return canceled_db([level.variance for level in self._channels], self._mono.variance)

    def share_without(self, variance: float) -> float:
        """Return the share of the power that a signal of this power lacks."""
        return float(np.clip(1.0 - variance / max(self._mono.variance, _TINY), 0.0, 1.0))


class _Clipping:
    """Share of samples at full scale, accumulated from blocks of all channels."""

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
    """File that is only read forward, because seeking fails in a FLAC of unknown length."""

    def seekable(self) -> bool:
        return False


def _mono_blocks(
    file: soundfile.SoundFile, limits: AudioLimits, budget: Budget, price: float, mix: _Mix, clipping: _Clipping
) -> Iterator[Samples]:
    """Read blocks `(frames,)`, spend `price` per frame, and check each block before it is returned."""
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
        with np.errstate(over="ignore", invalid="ignore"):  # infinities are refused below, without a warning
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
        mix.add(block, mono)
        clipping.add(block)
        yield mono
    if _declared_frames(file) > frames:
        raise _truncated(file, frames)


def _read(file: soundfile.SoundFile, frames: int) -> Samples:
    """Read the next block `(frames, channels)`, after `frames` frames."""
    try:
        block: Samples = file.read(_BLOCK_FRAMES, dtype="float32", always_2d=True)
    except soundfile.SoundFileError:
        # The FLAC decoder reports damage and an early end alike. It is an early end if all bytes were read.
        if _declared_frames(file) > frames and not file.name.read(1):
            raise _truncated(file, frames) from None
        raise
    return block


def _declared_frames(file: soundfile.SoundFile) -> int:
    """Return the frames that the header declares, or 0. Only FLAC declares either the exact length or none."""
    return file.frames if file.format == "FLAC" and file.frames != _UNKNOWN_FRAMES else 0


def _truncated(file: soundfile.SoundFile, frames: int) -> OffkeyError:
    return OffkeyError(
        ErrorKind.TRUNCATED_AUDIO,
        f"The clip is truncated: its header declares {file.frames} frames. Send the whole file again.",
        frames=frames,
    )


def _resampled(blocks: Iterable[Samples], source_rate: int, sample_rate: int) -> Iterator[Samples]:
    """Resample blocks to another rate."""
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


def _check_declared(data: bytes, limits: AudioLimits) -> None:
    # libsndfile accepts a truncated file, and does not report a rate that it cannot represent.
    header = read_headers(data)
    if header.sample_rate is not None:
        _check_rate(header.sample_rate, limits)
    if header.missing_bytes:
        raise OffkeyError(
            ErrorKind.TRUNCATED_AUDIO,
            f"The clip is truncated: {header.missing_bytes} bytes of the audio that its header declares are missing. "
            "Send the whole file again.",
            missing_bytes=header.missing_bytes,
        )


def _check_rate(sample_rate: int, limits: AudioLimits) -> None:
    if not limits.min_sample_rate <= sample_rate <= limits.max_sample_rate:
        raise OffkeyError(
            ErrorKind.UNSUPPORTED_SAMPLE_RATE,
            f"The clip's sample rate is {sample_rate} Hz; accepted are {limits.min_sample_rate} to "
            f"{limits.max_sample_rate} Hz.",
            sample_rate=sample_rate,
        )


def _reason(error: BaseException) -> str:
    text = getattr(error, "error_string", None) or str(error) or type(error).__name__
    return str(text).strip().rstrip(".")


def cut(samples: Samples, *, window: int, hop: int) -> list[tuple[int, Samples]]:
    """Cut a clip into full windows. The last one ends with the clip.

    Args:
        samples: `(samples,)`.
        window: window length in samples.
        hop: distance between window starts, in samples.

    Returns:
        Start and samples of each window, in order. A clip no longer than `window` is one window, without padding.
    """
    last = len(samples) - window
    if last <= 0:
        return [(0, samples)]
    starts = [*range(0, last, hop), last]
    return [(start, samples[start : start + window]) for start in starts]
