from dataclasses import replace

import numpy as np
import pytest

from service.synthetic.condition import HALL, Condition
from service.synthetic.fan import Fan

STEADY = replace(Fan(), wander=0.0)


def render(analyzer, severity=0.0, rpm=1_480.0, fan=STEADY, seed=0, load=1.0):
    condition = Condition(speed_rpm=rpm, load=load, background=HALL)
    return fan.render(condition, severity, np.random.default_rng(seed), (analyzer.samples, analyzer.sample_rate))


@pytest.mark.parametrize("rpm", [1_480.0, 1_180.0])
@pytest.mark.parametrize("blades", [5, 7])
def test_the_strongest_tone_is_at_blades_times_shaft_rate(analyzer, rpm, blades):
    sound = render(analyzer, rpm=rpm, fan=replace(STEADY, blades=blades))
    assert analyzer.peak_hz(sound, 50, 8_000) == pytest.approx(blades * rpm / 60, abs=analyzer.resolution_hz)


def test_harmonics_of_the_blade_pass_stand_out(analyzer):
    sound = render(analyzer)
    for k in (2, 3, 4):
        assert analyzer.line_db(sound, k * 7 * 1_480 / 60) > 15


def test_a_wandering_fan_stays_near_its_speed(analyzer):
    sound = render(analyzer, fan=Fan(), seed=3)
    assert analyzer.peak_hz(sound, 50, 8_000) == pytest.approx(7 * 1_480 / 60, rel=0.01)


def test_flow_noise_rises_off_the_design_load(analyzer):
    rated, throttled = (render(analyzer, load=load) for load in (1.0, 0.6))
    assert analyzer.share(throttled, 1_800, 4_000) > 1.2 * analyzer.share(rated, 1_800, 4_000)


def test_a_damaged_blade_modulates_the_blade_tone_once_per_turn(analyzer):
    shaft, tone = 1_480 / 60, 7 * 1_480 / 60
    for sideband in (tone - shaft, tone + shaft):
        levels = [analyzer.line_db(render(analyzer, severity), sideband) for severity in (0, 0.3, 0.6, 1)]
        assert levels == sorted(levels)
        assert levels[-1] > levels[0] + 10


def test_imbalance_raises_the_shaft_tone(analyzer):
    levels = [analyzer.line_db(render(analyzer, severity), 1_480 / 60) for severity in (0, 0.3, 0.6, 1)]
    assert levels == sorted(levels)
    assert levels[-1] - levels[0] == pytest.approx(STEADY.imbalance_db, abs=2.0)


def test_the_rub_scrapes_once_per_turn(analyzer):
    healthy, rubbing = (analyzer.envelope(render(analyzer, s), 1_600, 3_600) for s in (0.0, 1.0))
    assert analyzer.peak_hz(rubbing, 5, 400) == pytest.approx(1_480 / 60, abs=analyzer.resolution_hz)
    assert analyzer.line_db(rubbing, 2 * 1_480 / 60) > 15  # a pulse, not a sine
    assert analyzer.line_db(healthy, 2 * 1_480 / 60) < 12
