"""Physics of the sounds that clips are composed of."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training.composition import generators, shaping
from training.composition.shaping import SAMPLE_RATE, SAMPLES

seeds = st.integers(0, 2**32 - 1)


def tone(hertz: float) -> shaping.Sound:
    return np.sin(2 * np.pi * hertz * np.arange(SAMPLES) / SAMPLE_RATE).astype(np.float32)


def loudest_hertz(sound: shaping.Sound) -> float:
    return float(np.argmax(np.abs(np.fft.rfft(sound)))) / shaping.SECONDS


def test_twice_the_speed_is_twice_the_pitch() -> None:
    assert loudest_hertz(shaping.at_speed(tone(440), 2.0)) == 880
    assert np.array_equal(shaping.at_speed(tone(440), 1.0), tone(440))


def test_a_filter_takes_what_its_curve_says() -> None:
    curve = np.where(np.arange(SAMPLES // 2 + 1) < 1_000 * shaping.SECONDS, -60.0, 0.0)
    left = shaping.filter_by(tone(500) + tone(2_000), curve)
    spectrum = np.abs(np.fft.rfft(left))
    assert spectrum[500 * shaping.SECONDS] == pytest.approx(1e-3 * spectrum[2_000 * shaping.SECONDS], rel=1e-2)


def test_without_time_an_event_becomes_steady_and_keeps_its_spectrum() -> None:
    rng = np.random.default_rng(0)
    event = np.zeros(SAMPLES, dtype=np.float32)
    event[:4_000] = rng.standard_normal(4_000)
    steady = shaping.without_time(event, rng)
    assert np.allclose(np.abs(np.fft.rfft(steady))[1:-1], np.abs(np.fft.rfft(event))[1:-1], atol=1e-2)
    quarters = np.sqrt((steady.reshape(4, -1) ** 2).mean(axis=1))
    assert quarters.max() < 1.2 * quarters.min()


def test_harmonics_are_above_their_base_and_below_the_highest_tone() -> None:
    sound = generators.tones(np.random.default_rng(1), 1_000, 30)
    spectrum = np.abs(np.fft.rfft(sound)) ** 2
    hertz = np.fft.rfftfreq(SAMPLES, 1 / SAMPLE_RATE)
    near = np.abs(hertz / 1_000 - np.round(hertz / 1_000)) < 0.05
    assert spectrum[near].sum() > 0.95 * spectrum.sum()
    assert spectrum[hertz > 7_850].sum() < 1e-3 * spectrum.sum()


def test_impacts_have_the_requested_rate() -> None:
    sound = generators.impacts(np.random.default_rng(5), 4.0)
    frames = np.abs(sound).reshape(-1, 160).max(axis=1)  # 10 ms
    starts = np.flatnonzero((frames[1:] > 0.1 * frames.max()) & (frames[:-1] <= 0.1 * frames.max()))
    blows = 1 + np.count_nonzero(np.diff(starts) > 10)
    assert 16 <= blows <= 22


@settings(max_examples=15, deadline=None)
@given(seeds, st.floats(0.5, 300))
def test_every_generator_is_finite_of_the_right_length_and_says_the_same_again(seed: int, rate: float) -> None:
    for make in (
        generators.colored_noise,
        lambda rng: generators.tones(rng, 10 + rate, 20),
        lambda rng: generators.impacts(rng, rate),
        lambda rng: generators.envelope(rng, rate),
    ):
        once, again = make(np.random.default_rng(seed)), make(np.random.default_rng(seed))
        assert once.shape == (SAMPLES,)
        assert once.dtype == np.float32
        assert np.isfinite(once).all()
        assert np.array_equal(once, again)
    course = generators.envelope(np.random.default_rng(seed), rate)
    assert course.min() >= 0
    assert course.max() <= 1


@given(seeds)
@settings(max_examples=10, deadline=None)
def test_unit_power_is_unit_power_and_silence_stays_silent(seed: int) -> None:
    sound = np.random.default_rng(seed).standard_normal(SAMPLES) * 7 + 3
    assert np.mean(shaping.to_unit_power(sound) ** 2) == pytest.approx(1, rel=1e-4)
    assert not shaping.to_unit_power(np.zeros(SAMPLES)).any()
