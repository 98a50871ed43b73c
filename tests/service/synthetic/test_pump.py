from dataclasses import replace

import numpy as np
import pytest

from service.synthetic.condition import HALL, Condition
from service.synthetic.pump import Pump

STEADY = replace(Pump(), wander=0.0)
SHAFT_HZ = 2_950 / 60
SEVERITIES = (0.0, 0.1, 0.3, 0.6, 1.0)


def render(analyzer, severity=0.0, seed=0, load=1.0):
    condition = Condition(speed_rpm=2_950.0, load=load, background=HALL)
    return STEADY.render(condition, severity, np.random.default_rng(seed), (analyzer.samples, analyzer.sample_rate))


def test_the_strongest_tone_is_at_vanes_times_shaft_rate(analyzer):
    assert analyzer.peak_hz(render(analyzer), 20, 8_000) == pytest.approx(6 * SHAFT_HZ, abs=analyzer.resolution_hz)


def test_recirculation_raises_the_turbulence_at_part_load(analyzer):
    full, part = (analyzer.line_db(render(analyzer, load=load), 6 * SHAFT_HZ) for load in (1.0, 0.6))
    assert full - part == pytest.approx(0.4 * STEADY.recirculation_db, abs=1.5)


def test_a_bubble_collapses_in_rayleighs_time():
    # 0.915 * 2 mm * sqrt(1000 kg/m3 / 100 kPa) = 0.183 ms
    pump = replace(STEADY, density_kg_m3=1_000.0, pressure_pa=1.0e5)
    assert pump.collapse_seconds(2.0e-3) == pytest.approx(0.183e-3, rel=1e-3)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_cavitation_crackles_more_with_severity(analyzer, seed):
    sounds = [render(analyzer, severity, seed) for severity in SEVERITIES]
    kurtosis = [analyzer.kurtosis(sound, 3_000, 8_000) for sound in sounds]
    share = [analyzer.share(sound, 3_000, 8_000) for sound in sounds]
    assert kurtosis[0] == pytest.approx(3.0, abs=0.1)
    assert kurtosis == sorted(kurtosis)
    assert share == sorted(share)
    assert kurtosis[-1] > 5
    assert share[-1] > 2 * share[0]


def test_cavitation_follows_the_vanes(analyzer):
    crackle = analyzer.envelope(render(analyzer, 1.0), 4_000, 7_900)
    assert analyzer.peak_hz(crackle, 150, 2_000) == pytest.approx(6 * SHAFT_HZ, abs=0.5)
