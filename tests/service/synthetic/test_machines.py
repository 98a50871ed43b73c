import itertools
import re
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.synthetic import MACHINES
from service.synthetic.condition import HALL, WORKSHOP, Background, Condition

every_machine = pytest.mark.parametrize("machine", MACHINES.values(), ids=MACHINES.keys())


def level_dbfs(clip) -> float:
    return 10 * np.log10(np.mean(clip.astype(np.float64) ** 2))


def band_levels(clip):
    """Mean level in 24 bands, equally wide over the logarithm of frequency, dB."""
    power = np.abs(np.fft.rfft(clip)) ** 2
    edges = (np.geomspace(50, 7_900, 25) * len(clip) / 16_000).astype(int)
    return np.array([10 * np.log10(power[a:b].mean()) for a, b in itertools.pairwise(edges)])


def test_the_four_machines_are_called_synthetic():
    assert list(MACHINES) == ["fan-synthetic", "gearbox-synthetic", "pump-synthetic", "bearing-synthetic"]
    for machine_id, machine in MACHINES.items():
        assert machine.machine_id == machine_id
        assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", machine_id)
        assert "(synthetic)" in machine.title


@every_machine
def test_a_clip_is_ten_seconds_of_mono_float32(machine):
    clip = machine.clip(split="train", domain="source", number=0)
    assert clip.shape == (160_000,)
    assert clip.dtype == np.float32


@every_machine
@pytest.mark.parametrize("severity", [0.0, 0.7])
def test_the_same_call_gives_the_same_samples(machine, severity):
    call = {"split": "test", "domain": "target", "number": 3, "severity": severity, "seconds": 1.0}
    np.testing.assert_array_equal(machine.clip(**call), machine.clip(**call))


@every_machine
@pytest.mark.parametrize(
    "other", [{"seed": 1}, {"number": 1}, {"split": "test"}, {"domain": "target"}, {"severity": 0.01}]
)
def test_another_call_gives_another_clip(machine, other):
    call = {"split": "train", "domain": "source", "number": 0, "seconds": 1.0, "seed": 0}
    first, second = machine.clip(**call), machine.clip(**(call | other))
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.95
    assert not np.isclose(level_dbfs(first), level_dbfs(second), atol=1e-4)


def test_machines_do_not_share_their_random_numbers():
    levels = [
        level_dbfs(machine.clip(split="train", domain="source", number=0, seconds=1.0)) for machine in MACHINES.values()
    ]
    assert np.diff(sorted(levels)).min() > 1e-4


@every_machine
def test_the_level_does_not_give_the_fault_away(machine):
    levels = [
        level_dbfs(machine.clip(split="test", domain="source", number=2, severity=severity))
        for severity in (0.01, 0.3, 0.6, 1.0)
    ]
    assert levels == pytest.approx([levels[0]] * 4, abs=1e-3)
    for number in range(8):
        for severity in (0.0, 1.0):
            clip = machine.clip(split="test", domain="target", number=number, severity=severity, seconds=1.0)
            assert abs(level_dbfs(clip) + 26.0) <= 1.0 + 1e-3


@every_machine
def test_domains_differ_more_than_clips_of_one_domain(machine):
    source, target = (
        np.array([band_levels(machine.clip(split="train", domain=domain, number=n)) for n in range(6)])
        for domain in ("source", "target")
    )
    within = max(clips.std(axis=0).mean() for clips in (source, target))
    assert np.abs(source.mean(axis=0) - target.mean(axis=0)).mean() > 2 * within
    assert within > 0.3  # dB: healthy clips are not copies


@every_machine
def test_domains_are_two_operating_points(machine):
    assert machine.condition("source") == machine.source
    assert machine.condition("target") == machine.target
    assert machine.source.speed_rpm != machine.target.speed_rpm
    assert machine.source.load != machine.target.load
    assert machine.source.background != machine.target.background


@settings(max_examples=40, deadline=None)
@given(
    machine_id=st.sampled_from(sorted(MACHINES)),
    domain=st.sampled_from(["source", "target"]),
    severity=st.floats(0.0, 1.0),
    seed=st.integers(0, 2**63),
    number=st.integers(0, 10**6),
    seconds=st.floats(0.1, 2.0),
    sample_rate=st.sampled_from([8_000, 16_000, 32_000, 44_100]),
)
def test_every_clip_is_finite_at_its_level_and_unclipped(
    machine_id, domain, severity, seed, number, seconds, sample_rate
):
    clip = MACHINES[machine_id].clip(
        split="test",
        domain=domain,
        number=number,
        severity=severity,
        seconds=seconds,
        sample_rate=sample_rate,
        seed=seed,
    )
    assert clip.shape == (round(seconds * sample_rate),)
    assert np.isfinite(clip).all()
    assert np.abs(clip).max() < 1.0
    assert abs(level_dbfs(clip) + 26.0) <= 1.0 + 1e-3


@pytest.mark.parametrize("severity", [-0.1, 1.01, float("nan"), 70])
def test_a_severity_outside_0_to_1_is_refused(severity):
    with pytest.raises(ValueError, match=r"severity lies in \[0, 1\]"):
        MACHINES["fan-synthetic"].clip(split="test", domain="source", number=0, severity=severity)


def test_an_unknown_domain_is_refused():
    with pytest.raises(ValueError, match="'source' or 'target', got 'elsewhere'"):
        MACHINES["fan-synthetic"].clip(split="test", domain="elsewhere", number=0)


def test_a_clip_of_no_length_is_refused():
    with pytest.raises(ValueError, match=r"at least 0\.1 s"):
        MACHINES["fan-synthetic"].clip(split="test", domain="source", number=0, seconds=0.0)


@pytest.mark.parametrize(("rpm", "load"), [(0.0, 1.0), (-5.0, 1.0), (1_480.0, 0.0), (1_480.0, float("nan"))])
def test_an_impossible_condition_is_refused(rpm, load):
    with pytest.raises(ValueError, match="speed_rpm > 0 and load"):
        Condition(speed_rpm=rpm, load=load, background=HALL)


def test_knocks_come_now_and_then_over_a_steady_background():
    def render(room: Background, seed: int):
        return room.render(np.random.default_rng(seed), 160_000, 16_000)

    quiet_room = replace(WORKSHOP, knocks_per_second=0.0)
    knocks = np.array([render(WORKSHOP, seed) - render(quiet_room, seed) for seed in range(20)])
    blocks = np.abs(knocks).reshape(20, 100, 1_600).max(axis=2)  # (clips, tenths of a second)
    audible = np.mean(np.sum(blocks > 0.3, axis=1))
    assert audible == pytest.approx(0.4 * 10, rel=0.4)
    assert np.mean(blocks < 1e-3) > 0.5


def test_importing_the_package_costs_no_audio_library():
    code = "import service.synthetic, sys; print([m for m in ('soundfile', 'torch', 'scipy') if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert out.stdout.strip() == "[]"
