from dataclasses import replace

import numpy as np
import pytest

from service.synthetic import MACHINES
from service.synthetic.bearing import Bearing
from service.synthetic.condition import HALL, Condition

STEADY = replace(Bearing(), wander=0.0)
SHAFT_HZ = 1_480 / 60
BPFO_HZ = 9 / 2 * SHAFT_HZ * (1 - 7.94 / 39.04)
HOUSING = (2_500.0, 4_000.0)  # Hz, around the resonance at 3.2 kHz


def render(analyzer, severity=0.0, bearing=STEADY, seed=0):
    condition = Condition(speed_rpm=1_480.0, load=1.0, background=HALL)
    return bearing.render(condition, severity, np.random.default_rng(seed), (analyzer.samples, analyzer.sample_rate))


def test_passages_agree_with_the_published_ones_of_a_6205():
    # Case Western Reserve University's bearing data center states 3.5848 for the 6205-2RS.
    assert STEADY.passages_per_turn == pytest.approx(3.5848, abs=0.001)


def test_a_contact_angle_brings_the_passages_nearer_to_half_the_balls():
    assert replace(STEADY, contact_angle_rad=np.pi / 2).passages_per_turn == pytest.approx(4.5)


def test_hum_is_at_twice_the_line_frequency(analyzer):
    assert analyzer.peak_hz(render(analyzer), 10, 8_000) == pytest.approx(2 * 2 * SHAFT_HZ, abs=analyzer.resolution_hz)


@pytest.mark.parametrize("side", [-1, 1])
def test_slot_tones_are_on_both_sides_of_the_slot_rate(analyzer, side):
    assert analyzer.line_db(render(analyzer), 28 * SHAFT_HZ + side * 4 * SHAFT_HZ) > 15


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_envelope_of_a_faulty_bearing_peaks_at_bpfo_and_a_healthy_ones_does_not(analyzer, seed):
    healthy, faulty = (analyzer.envelope(render(analyzer, severity, seed=seed), *HOUSING) for severity in (0.0, 0.6))
    assert analyzer.peak_hz(faulty, 5, 400) == pytest.approx(BPFO_HZ, abs=0.3)
    assert analyzer.peak_hz(healthy, 5, 400) != pytest.approx(BPFO_HZ, abs=1.0)
    assert analyzer.line_db(healthy, BPFO_HZ) < 12


def test_slip_smears_the_harmonics_of_bpfo(analyzer):
    sharp, smeared = (
        analyzer.envelope(render(analyzer, 1.0, replace(STEADY, slip=slip)), *HOUSING) for slip in (0.0, 0.015)
    )
    assert analyzer.line_db(sharp, 3 * BPFO_HZ) > analyzer.line_db(smeared, 3 * BPFO_HZ) + 6


def test_severity_raises_the_resonance_and_its_peaks(analyzer):
    sounds = [render(analyzer, severity) for severity in (0.0, 0.3, 0.6, 1.0)]
    share = [analyzer.share(sound, 3_000, 3_400) for sound in sounds]
    kurtosis = [analyzer.kurtosis(sound, *HOUSING) for sound in sounds]
    assert share == sorted(share)
    assert kurtosis == sorted(kurtosis)
    assert kurtosis[-1] > 4


def test_the_fault_is_added_to_the_same_healthy_machine(analyzer):
    healthy, half, full = (render(analyzer, severity) for severity in (0.0, 0.5, 1.0))
    np.testing.assert_allclose(full - healthy, 2.0 * (half - healthy), atol=1e-9)


@pytest.mark.parametrize("domain", ["source", "target"])
def test_bpfo_is_detectable_in_the_background(analyzer, domain):
    machine = MACHINES["bearing-synthetic"]
    clip = machine.clip(split="test", domain=domain, number=0, severity=1.0).astype(np.float64)
    bpfo = STEADY.passages_per_turn * machine.condition(domain).shaft_hz
    assert analyzer.peak_hz(analyzer.envelope(clip, *HOUSING), 20, 400) == pytest.approx(bpfo, rel=0.01)
