from dataclasses import replace

import numpy as np
import pytest

from service.synthetic.condition import HALL, Condition
from service.synthetic.gearbox import Gearbox

STEADY = replace(Gearbox(), wander=0.0)
PINION_HZ = 1_740 / 60
WHEEL_HZ = PINION_HZ * 23 / 67
MESH_HZ = 23 * PINION_HZ


def render(analyzer, severity=0.0, gearbox=STEADY, seed=0, load=1.0):
    condition = Condition(speed_rpm=1_740.0, load=load, background=HALL)
    return gearbox.render(condition, severity, np.random.default_rng(seed), (analyzer.samples, analyzer.sample_rate))


def test_the_strongest_tone_is_where_teeth_meet(analyzer):
    assert analyzer.peak_hz(render(analyzer), 50, 8_000) == pytest.approx(MESH_HZ, abs=analyzer.resolution_hz)


def test_both_wheels_meet_at_the_same_rate():
    assert pytest.approx(67 * WHEEL_HZ) == MESH_HZ


@pytest.mark.parametrize("shaft_hz", [PINION_HZ, WHEEL_HZ])
@pytest.mark.parametrize("side", [-1, 1])
@pytest.mark.parametrize("k", [1, 2])
def test_sidebands_of_the_mesh_sit_at_the_shaft_rates(analyzer, shaft_hz, side, k):
    sound = render(analyzer)
    at = k * MESH_HZ + side * shaft_hz
    assert analyzer.peak_hz(sound, at - 3, at + 3) == pytest.approx(at, abs=analyzer.resolution_hz)
    true_wheels = render(analyzer, gearbox=replace(STEADY, pinion_depth=0.0, wheel_depth=0.0))
    assert analyzer.line_db(sound, at) > 15
    assert analyzer.line_db(true_wheels, at) < 12


def test_mesh_tones_grow_with_the_torque(analyzer):
    half, full = (analyzer.line_db(render(analyzer, load=load), MESH_HZ) for load in (0.5, 1.0))
    assert full - half == pytest.approx(6.0, abs=0.5)


def test_a_chipped_tooth_spreads_the_mesh_over_many_sidebands(analyzer):
    # From the second on: a smooth eccentricity has none there, a short pulse does.
    orders = [side * order for side in (-1, 1) for order in range(2, 9)]
    rigid = replace(STEADY, casing=())  # impacts, being locked to the pinion, would fill the same lines

    def sidebands(severity: float) -> list[float]:
        sound = render(analyzer, severity, rigid)
        return [analyzer.line_db(sound, MESH_HZ + order * PINION_HZ) for order in orders]

    levels = np.array([sidebands(severity) for severity in (0, 0.3, 0.6, 1)])  # (severities, sidebands)
    assert levels[0].max() < 12
    assert levels[-1].min() > 12
    assert np.all(np.diff(levels.mean(axis=1)) > 3)


def test_a_chipped_tooth_strikes_once_per_turn_of_the_pinion(analyzer):
    healthy, chipped = (analyzer.envelope(render(analyzer, s), 4_800, 5_600) for s in (0.0, 1.0))
    assert analyzer.peak_hz(chipped, 5, 400) == pytest.approx(PINION_HZ, abs=analyzer.resolution_hz)
    assert analyzer.line_db(chipped, 3 * PINION_HZ) > 15
    assert analyzer.line_db(healthy, 3 * PINION_HZ) < 12


def test_impacts_grow_with_severity(analyzer):
    kurtosis = [analyzer.kurtosis(render(analyzer, s), 4_800, 5_600) for s in (0, 0.3, 0.6, 1)]
    assert kurtosis == sorted(kurtosis)
    assert kurtosis[0] == pytest.approx(3.0, abs=0.2)
    assert kurtosis[-1] > 6
