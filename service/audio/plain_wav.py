"""Reads plain WAV files without libsndfile: 16-bit PCM at the encoder's own rate.

Such a file needs no decoder and therefore no child process (decision 0010), and is read in a third of the time
(benchmarks/decoding.py). Every unusual file, valid or not, is left to `service.audio.decode`. Both return the same
samples.
"""

import struct
from typing import NamedTuple

import numpy as np

from service.audio.budget import Budget
from service.audio.decode import AudioLimits, Samples, Waveform, canceled_db, clipped, mixed
from service.domain.acoustics import mean_of

_HEAD = struct.Struct("<4sI4s")
_CHUNK = struct.Struct("<4sI")
_FORMAT = struct.Struct("<HHIIHH")  # tag, channels, rate, bytes per second, bytes per frame, bits
_PCM, _BITS = 1, 16
_MAX_CHUNKS = 32  # before the audio
_SKIPPED = frozenset({b"LIST", b"JUNK", b"junk", b"bext"})
_SCALE = np.float32(1 / 32_768)  # a power of two: as exact as a division
_MAX_SAMPLES = 2**21  # over all channels, 8 MiB as float32; larger files are decoded in a child process
_AUDIBLE = 4.0  # multiple of the power of silence; a quieter clip is left to the exact check


class _Layout(NamedTuple):
    channels: int
    at: int  # offset of the first sample, bytes
    size: int  # length of the audio, bytes


def read_plain_wav(data: bytes, sample_rate: int, limits: AudioLimits, budget: Budget) -> Waveform | None:
    """Read a clip if it is a plain WAV file.

    Args:
        data: bytes of any file.
        sample_rate: required sample rate, Hz.
        limits: limits of a clip.
        budget: budget of the request, spent only if the clip is read.

    Returns:
        The clip, or None if the file is not a plain WAV file within the limits.

    Raises:
        OffkeyError: the budget is spent, or the service is stopping.
    """
    layout = _layout(data, sample_rate)
    if layout is None or layout.channels > limits.max_channels:
        return None
    frames = layout.size // (2 * layout.channels)
    if not 0 < frames <= int(limits.max_seconds * sample_rate) or frames * layout.channels > _MAX_SAMPLES:
        return None
    words = np.frombuffer(data, dtype="<i2", count=frames * layout.channels, offset=layout.at)
    block: Samples = np.multiply(words.reshape(frames, layout.channels), _SCALE, dtype=np.float32)
    samples = mixed(block)
    around = samples - np.float32(mean_of(samples))
    if around @ around / frames < _AUDIBLE * 10 ** (limits.silence_dbfs / 10):
        return None
    budget.spend(frames * layout.channels)
    power = [float(np.var(channel)) for channel in block.T] if layout.channels > 1 else []
    canceled = canceled_db(power, float(around @ around) / frames)
    return Waveform(samples, sample_rate, sample_rate, layout.channels, clipped(block) / block.size, canceled)


def _layout(data: bytes, sample_rate: int) -> _Layout | None:
    """Find the samples. Returns None if the file is not a plain WAV file, or is truncated."""
    if len(data) < _HEAD.size or _HEAD.unpack_from(data)[::2] != (b"RIFF", b"WAVE"):
        return None
    at, channels = _HEAD.size, 0
    for _ in range(_MAX_CHUNKS):
        if at + _CHUNK.size > len(data):
            return None
        name, size = _CHUNK.unpack_from(data, at)
        at += _CHUNK.size
        if name == b"data":
            whole = channels > 0 and at + size <= len(data) and size % (2 * channels) == 0
            return _Layout(channels, at, size) if whole else None
        if name == b"fmt ":
            if channels or size < _FORMAT.size or at + size > len(data):
                return None
            tag, channels, rate, _, frame, bits = _FORMAT.unpack_from(data, at)
            if (tag, rate, frame, bits) != (_PCM, sample_rate, 2 * channels, _BITS):
                return None
        elif name not in _SKIPPED:
            return None
        at += size + size % 2
    return None
