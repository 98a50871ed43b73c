import math

import numpy as np
import pytest

from service.synthetic.signal import (
    Mode,
    contact,
    event_times,
    gain,
    harmonics,
    modulation,
    noise,
    ring,
    rms,
    shaft_angle,
    slow_walk,
)

RATE = 16_000
SECOND = (RATE, RATE)
TEN = (10 * RATE, RATE)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(7)


def test_harmonics_stand_at_their_frequencies_and_levels(rng, analyzer):
    angle = shaft_angle(100.0, 0.0, rng, *SECOND)
    tones = harmonics(angle, (0.0, -6.0, -12.0), rng, spread_db=0.0)
    amplitude = np.abs(np.fft.rfft(tones)) / (RATE / 2) / math.sqrt(2)  # RMS of each line, 1 Hz apart
    assert amplitude[[100, 200, 300]] == pytest.approx([gain(0), gain(-6), gain(-12)], rel=1e-3)
    assert amplitude[150] < 1e-3


def test_horners_rule_gives_the_sum_of_cosines(rng):
    angle = shaft_angle(70.0, 0.01, rng, *SECOND)
    levels = (0.0, -3.0, -7.0, -20.0)
    tones = harmonics(angle, levels, np.random.default_rng(3), spread_db=0.0)
    again = np.random.default_rng(3)
    again.standard_normal(4)
    phases = again.uniform(0.0, 2.0 * math.pi, 4)
    slow = sum(
        math.sqrt(2) * gain(level) * np.cos(k * angle + phases[k - 1]) for k, level in enumerate(levels, start=1)
    )
    np.testing.assert_allclose(tones, slow, atol=1e-9)


def test_a_tone_above_half_the_sample_rate_vanishes(rng):
    angle = shaft_angle(3_000.0, 0.0, rng, *SECOND)
    levels_db = (0.0, 0.0, 40.0)  # 3, 6 and 9 kHz
    tones = harmonics(angle, levels_db, rng, spread_db=0.0)
    assert rms(tones) == pytest.approx(math.sqrt(2.0), rel=1e-6)


def test_a_mode_above_half_the_sample_rate_is_silent():
    hit = (np.array([100.0]), np.array([1.0]))
    assert not ring(*hit, [Mode(9_000.0, 0.05)], *SECOND).any()


def test_a_steady_shaft_turns_at_its_frequency(rng):
    angle = shaft_angle(25.0, 0.0, rng, *TEN)
    assert (angle[-1] - angle[0]) / (2 * math.pi) == pytest.approx(25.0 * 10.0, abs=0.01)


def test_a_wandering_shaft_keeps_to_its_spread(rng):
    angles = [shaft_angle(25.0, 0.01, rng, *TEN) for _ in range(40)]
    speeds = np.concatenate([np.diff(angle) for angle in angles]) * RATE / (2 * math.pi * 25.0)
    assert speeds.mean() == pytest.approx(1.0, abs=0.005)
    assert speeds.std() == pytest.approx(0.01, rel=0.3)


def test_a_slow_walk_is_slow_and_of_unit_variance(rng):
    walks = np.array([slow_walk(rng, 10_000, 1_000) for _ in range(200)])  # (clips, samples)
    assert walks.std() == pytest.approx(1.0, abs=0.15)
    assert np.abs(np.diff(walks, axis=1)).max() * 1_000 < 10.0  # per second


def test_noise_has_unit_rms_no_offset_and_its_density(rng, analyzer):
    hiss = noise(((100.0, 0.0), (1_000.0, 0.0), (4_000.0, -20.0)), rng, *TEN, spread_db=0.0)
    hertz, power = analyzer.spectrum(hiss)

    def level(low: float, high: float) -> float:
        return 10 * math.log10(power[(hertz > low) & (hertz < high)].mean())

    assert rms(hiss) == pytest.approx(1.0)
    assert abs(hiss.mean()) < 1e-9
    assert level(950, 1_050) - level(1_950, 2_050) == pytest.approx(10.0, abs=1.0)  # one of two octaves
    assert level(450, 550) - level(6_000, 7_000) == pytest.approx(20.0, abs=1.0)


def test_noise_stretches_with_the_speed(rng, analyzer):
    hump = ((500.0, -60.0), (1_000.0, 0.0), (2_000.0, -60.0))
    fast = noise(hump, rng, *TEN, stretch=2.0, spread_db=0.0)
    assert analyzer.peak_hz(fast, 100, 8_000) == pytest.approx(2_000, rel=0.05)


def test_an_impact_rings_at_its_mode_and_decays(rng):
    mode = Mode(2_000.0, 0.02)
    sound = ring(np.array([1_600.0]), np.array([1.0]), [mode], *SECOND)
    assert not sound[:1_601].any()
    spectrum = np.abs(np.fft.rfft(sound))
    assert np.argmax(spectrum) == pytest.approx(2_000, abs=4)
    period = RATE // 2_000
    maxima = sound[1_600:].reshape(-1, period).max(axis=1)  # one a period
    falls = np.diff(np.log(maxima[:20]))
    assert falls == pytest.approx(np.full(19, -2 * math.pi * 0.02), rel=1e-3)


def test_an_impact_between_samples_starts_between_samples():
    mode = Mode(1_000.0, 0.05)
    on, between = (ring(np.array([t]), np.array([1.0]), [mode], *SECOND)[100:400] for t in (100.0, 100.25))
    seconds = (np.arange(100, 400) - 100.25) / RATE
    exact = np.exp(-2 * math.pi * 1_000.0 * 0.05 * seconds) * np.sin(2 * math.pi * 1_000.0 * seconds)
    exact[0] = 0.0
    assert not np.allclose(on, between, atol=0.05)
    np.testing.assert_allclose(between, exact, atol=2e-3)


def test_an_impact_at_the_end_of_a_clip_is_cut_off():
    sound = ring(np.array([RATE - 3.0]), np.array([1.0]), [Mode(1_000.0, 0.05)], *SECOND)
    assert len(sound) == RATE
    assert sound[-2:].all()


def test_events_come_once_per_turn_at_the_same_angle(rng):
    angle = shaft_angle(25.0, 0.02, rng, *TEN)
    times = event_times(angle, 1.0, rng)
    at = np.interp(times, np.arange(len(angle)), angle)
    assert len(times) == pytest.approx((angle[-1] - angle[0]) / (2 * math.pi), abs=1)
    assert np.abs(np.exp(1j * at) - 1.0).max() < 1e-6


@pytest.mark.parametrize("slip", [0.01, 0.02])
def test_events_slip_by_the_requested_share(rng, slip):
    angle = shaft_angle(25.0, 0.0, rng, *TEN)
    intervals = np.diff(event_times(angle, 3.585, rng, slip=slip))
    assert intervals.mean() == pytest.approx(RATE / (25.0 * 3.585), rel=0.002)
    assert intervals.std() / intervals.mean() == pytest.approx(slip, rel=0.1)


def test_a_contact_lasts_its_width_once_per_turn(rng):
    angle = np.linspace(0.0, 2 * math.pi, 10_001)
    pulse = contact(angle, 0.25)
    assert pulse.max() == 1.0
    assert pulse[angle.searchsorted(0.25)] == pytest.approx(math.exp(-0.5), rel=0.01)
    assert pulse[5_000] < 1e-10


def test_modulation_swings_by_its_depth(rng):
    swing = modulation(shaft_angle(10.0, 0.0, rng, *SECOND), 0.3, rng)
    assert (swing.min(), swing.max()) == pytest.approx((0.7, 1.3), abs=1e-3)
