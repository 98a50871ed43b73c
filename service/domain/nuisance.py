"""Variants of an enrolled clip: changes of its sound that are not the machine's.

Healthy clips alone do not show which differences are irrelevant. Each enrolled clip is therefore also embedded with
other noise, through another recording chain, and cut to shorter lengths. Noise and chains are synthesized here, so
nothing has to be recorded or licensed. docs/experiments/irrelevant-variation.md has what variants change.
"""

from collections.abc import Iterator
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from service.domain.lengths import CUT_SECONDS

Samples = NDArray[np.float32]  # (samples,)

VERSION = 1  # raise it with every change of variants or cuts: evaluations cache them
CUT_RECORDINGS = 40  # clips of a machine that are also cut; more do not make a threshold much better
# Variants of the first 8, the next 8 and the next 16 clips of a machine: 256 in all.
_SCHEDULE = ((8, 16), (16, 8), (32, 4))
_NOISE_SHARE = 0.75  # of the variants; the others change the recording chain
_SNR_DB = (-5.0, 5.0)
_LIBRARY = 100  # noises
_LIBRARY_SECONDS = 6.0
_STEADY = 0  # number of the steady kind
_LEVEL = 0.1  # RMS of variants; encoders remove the level
_FRAME = 1_024  # samples of the codec's spectra
_CODEC_BANDS = 32
_TINY = 1e-12


def variant_count(enrolled: int) -> int:
    """Return how many variants of a clip are embedded if so many clips of its machine are enrolled before it."""
    return next((count for clips, count in _SCHEDULE if enrolled < clips), 0)


def variants(samples: Samples, sample_rate: int, count: int, seed: int) -> Iterator[Samples]:
    """Create variants of a window.

    Args:
        samples: window at any level, `(samples,)`.
        sample_rate: sample rate, Hz.
        count: number of variants.
        seed: seed of the draws; equal seeds give equal variants.
    """
    rng = np.random.default_rng(seed)
    clip = _unit_power(samples)
    for number in range(count):
        if number < round(_NOISE_SHARE * count):
            changed = clip * np.float32(10 ** (rng.uniform(*_SNR_DB) / 20)) + _noise(len(clip), sample_rate, rng)
        else:
            chain = _CHAINS[rng.integers(len(_CHAINS))]
            changed = chain(clip, sample_rate, rng)
        scaled: Samples = _LEVEL * _unit_power(changed)
        yield scaled


def cuts(samples: Samples, sample_rate: int, seed: int) -> Iterator[Samples]:
    """Cut a window to each of `CUT_SECONDS` that is shorter than it, at random places."""
    rng = np.random.default_rng(seed)
    for seconds in CUT_SECONDS:
        length = round(seconds * sample_rate)
        if length < len(samples):
            start = int(rng.integers(len(samples) - length + 1))
            yield samples[start : start + length]


@lru_cache(maxsize=2)
def noise_library(sample_rate: int) -> NDArray[np.float16]:
    """Synthesize noises of unit power, `(noises, samples)`. The kind of a noise is its number modulo the kinds.

    There are many, because variants with the same noise differ in few directions. Hum counts twice: it is what
    other machines nearby add.
    """
    rng = np.random.default_rng(20_250_918)
    length = round(_LIBRARY_SECONDS * sample_rate)
    noises = (_KINDS[number % len(_KINDS)](length, sample_rate, rng) for number in range(_LIBRARY))
    return np.stack([_unit_power(noise).astype(np.float16) for noise in noises])


def _noise(length: int, sample_rate: int, rng: np.random.Generator, kind: int | None = None) -> NDArray[np.float32]:
    """Draw a noise of the library with another start and unit power, `(length,)`.

    Args:
        length: number of samples.
        sample_rate: sample rate, Hz.
        rng: random numbers.
        kind: number of the kind, None for any.
    """
    library = noise_library(sample_rate)
    kinds = len(_KINDS)
    number = (
        int(rng.integers(len(library))) if kind is None else kind + kinds * int(rng.integers(len(library) // kinds))
    )
    start = int(rng.integers(library.shape[1]))
    return _unit_power(np.resize(np.roll(library[number], start), length).astype(np.float32))


def _unit_power(samples: NDArray[np.floating]) -> NDArray[np.float32]:
    """Remove the mean and scale to unit power. Silence stays silent."""
    centered = samples.astype(np.float32) - np.float32(samples.mean(dtype=np.float64))
    power = float(np.mean(np.square(centered), dtype=np.float64))
    scaled: NDArray[np.float32] = centered * np.float32(1.0 / np.sqrt(power + _TINY))
    return scaled


def _filtered(samples: NDArray[np.float32], gains: NDArray[np.float64]) -> NDArray[np.float32]:
    found: NDArray[np.float32] = np.fft.irfft(np.fft.rfft(samples) * gains.astype(np.float32), len(samples)).astype(
        np.float32
    )
    return found


def _colored(length: int, sample_rate: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Create noise with a random smooth spectrum."""
    hertz = np.maximum(np.fft.rfftfreq(length, 1 / sample_rate), 30.0)
    octaves = np.log2(hertz / 30.0) / np.log2(sample_rate / 2 / 30.0)
    decibels = np.interp(octaves, np.linspace(0, 1, 8), rng.normal(0, 8, 8)) - rng.uniform(0, 6) * np.log2(hertz / 500)
    return _unit_power(_filtered(rng.standard_normal(length, dtype=np.float32), 10 ** (decibels / 20)))


def _fluctuating(length: int, sample_rate: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Create noise whose level changes."""
    points = int(rng.integers(4, 60))
    decibels = np.interp(np.arange(length), np.linspace(0, length, points), rng.normal(0, 6, points))
    return _colored(length, sample_rate, rng) * (10 ** (decibels / 20)).astype(np.float32)


def _clattering(length: int, sample_rate: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Create noise of decaying strokes at random times."""
    strokes = max(1, int(rng.poisson(10 ** rng.uniform(0, 1.5) * length / sample_rate)))
    decay = 10 ** rng.uniform(-2.3, -0.8) * sample_rate  # samples
    onsets = np.zeros(length, dtype=np.float32)
    onsets[rng.integers(0, length, strokes)] = 10 ** (rng.normal(0, 6, strokes) / 20)
    envelope = np.exp(-np.arange(min(length, int(5 * decay))) / decay)
    size = 1 << (length + len(envelope)).bit_length()
    strength = np.fft.irfft(np.fft.rfft(onsets, size) * np.fft.rfft(envelope, size), size)[:length]
    behind = 0.05 * float(np.sqrt(np.mean(np.square(strength))))
    return (strength * _colored(length, sample_rate, rng)).astype(np.float32) + np.float32(behind) * _colored(
        length, sample_rate, rng
    )


def _humming(length: int, sample_rate: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Create the hum of a rotating machine: harmonics with a slightly changing speed, in noise."""
    fundamental = 10 ** rng.uniform(1.3, 2.6)  # Hz
    orders = np.arange(1, int(min(60, 0.45 * sample_rate / fundamental)) + 1)
    speed = 1 + 0.002 * np.interp(np.arange(length), np.linspace(0, length, 20), rng.standard_normal(20))
    turns = np.cumsum(speed) * (fundamental / sample_rate) % 1.0
    weights = 10 ** (rng.normal(0, 6, len(orders)) / 20) / orders ** rng.uniform(0.3, 1.2)
    # One turn is sampled finely and read at each angle: much faster than a sine for each harmonic.
    angles = np.arange(4_096) / 4_096
    phases = rng.uniform(0, 2 * np.pi, len(orders))
    turn = np.sin(2 * np.pi * angles[:, None] * orders + phases) @ weights
    hum = _unit_power(turn[(turns * 4_096).astype(np.int64)])
    return hum + np.float32(rng.uniform(0.1, 1.0)) * _colored(length, sample_rate, rng)


def _codec(clip: NDArray[np.float32], sample_rate: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Change a clip as a lossy codec does: coarsely rounded spectra, and nothing in the highest band."""
    half = _FRAME // 2
    window = np.sqrt(np.hanning(_FRAME + 1)[:-1]).astype(np.float32)
    padded = np.pad(clip, (_FRAME, _FRAME + (-len(clip)) % half))
    frames = np.lib.stride_tricks.sliding_window_view(padded, _FRAME)[::half] * window
    spectra = np.fft.rfft(frames, axis=1)  # (frames, bins)
    bins = spectra.shape[1]
    edges = np.arange(_CODEC_BANDS) * bins // _CODEC_BANDS
    power = np.add.reduceat(np.square(spectra.real) + np.square(spectra.imag), edges, axis=1) / np.diff([*edges, bins])
    steps = np.repeat(np.sqrt(power + _TINY) * 10 ** (rng.uniform(-4, 4) / 20), np.diff([*edges, bins]), axis=1)
    rounded = (np.round(spectra.real / steps) + 1j * np.round(spectra.imag / steps)) * steps
    # Some codecs leave the bins that rounding removed empty, others fill them with noise of the band's level.
    phases = np.exp(2j * np.pi * rng.random(spectra.shape, dtype=np.float32))
    rounded += (rounded == 0) * phases * np.abs(spectra) * rng.choice([0.0, 1.0])
    rounded[:, int(rng.uniform(5_500, 7_500) / sample_rate * _FRAME) :] = 0
    pieces = (np.fft.irfft(rounded, axis=1) * window).astype(np.float32).reshape(len(frames), 2, half)
    found = np.zeros((len(frames) + 1, half), dtype=np.float32)
    found[:-1] += pieces[:, 0]
    found[1:] += pieces[:, 1]
    joined: NDArray[np.float32] = found.reshape(-1)[_FRAME : _FRAME + len(clip)]
    return joined


def _tilt(clip: NDArray[np.float32], sample_rate: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Tilt the spectrum by up to 1.5 dB per octave, as another microphone does."""
    octaves = np.log2(np.maximum(np.fft.rfftfreq(len(clip), 1 / sample_rate), 50.0) / 1_000.0)
    return _filtered(clip, 10 ** (rng.uniform(-1.5, 1.5) * octaves / 20))


def _room(clip: NDArray[np.float32], sample_rate: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Add the decaying echo of a room."""
    length = round(0.25 * sample_rate)
    decay = sample_rate * rng.uniform(0.02, 0.06)  # samples
    response = rng.standard_normal(length) * np.exp(-np.arange(length) / decay) * rng.uniform(0.02, 0.08)
    response[0] = 1.0
    size = 1 << (len(clip) + length).bit_length()
    found = np.fft.irfft(np.fft.rfft(clip, size) * np.fft.rfft(response.astype(np.float32), size), size)
    echoing: NDArray[np.float32] = found[: len(clip)].astype(np.float32)
    return echoing


def _shift(clip: NDArray[np.float32], sample_rate: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Start the clip at another moment: its end is joined to its start, faded over 50 ms."""
    fade = round(0.05 * sample_rate)
    if len(clip) < 3 * fade:
        return clip
    start = int(rng.integers(fade + 1, len(clip) - fade))
    first, second = clip[start:], clip[:start]
    ramp = np.linspace(0, 1, fade, dtype=np.float32)
    seam = first[-fade:] * np.sqrt(1 - ramp) + second[:fade] * np.sqrt(ramp)
    # The missing samples follow from the start, where the clip goes on.
    return np.resize(np.concatenate([first[:-fade], seam, second[fade:]]), len(clip))


def _floor(clip: NDArray[np.float32], sample_rate: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Add the noise floor of another recorder, 25 to 50 dB below the clip."""
    gain = np.float32(10 ** (-rng.uniform(25, 50) / 20))
    noisy: NDArray[np.float32] = clip + gain * _noise(len(clip), sample_rate, rng, _STEADY)
    return noisy


_CHAINS = (_codec, _codec, _tilt, _room, _floor, _shift)
_KINDS = (_colored, _fluctuating, _clattering, _humming, _humming)
