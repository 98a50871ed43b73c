"""A method is chosen without the machine it is judged on, and training seeds widen the intervals."""

import numpy as np
import pytest

from offkey.vocabulary import Domain
from training.evaluation.choice import FIGURE, leave_one_out, machine_names
from training.evaluation.comparison import ALL, Cell, Comparison, cells
from training.evaluation.tree import JudgedClip, JudgedMachine

SNRS = (0.0,)
CLIPS = 40  # normal, and as many anomalous


def machine(folder: str, section: str = "00") -> JudgedMachine:
    test = tuple(
        JudgedClip(None, Domain.SOURCE, anomalous, f"{anomalous} {number}")
        for anomalous in (False, True)
        for number in range(CLIPS)
    )
    return JudgedMachine(f"{folder}/section_{section}", (), test, folder, section)


def scores(
    machines: list[JudgedMachine], seed: int, shifts: dict[str, float]
) -> dict[tuple[str, Cell], list[np.ndarray]]:
    """Anomalous clips of a machine score higher by `shifts` of its folder."""
    rng = np.random.default_rng(seed)
    return {
        (one.name, cell): [rng.normal(size=len(one.test)) + shifts[one.folder] * one.anomalous]
        for one in machines
        for cell, _ in cells(SNRS)
    }


def compared(machines: list[JudgedMachine], shifts: dict[str, dict[str, float]], replicates: int = 300) -> Comparison:
    comparison = Comparison(machines, SNRS, 1, replicates)
    for seed, (method, own) in enumerate(shifts.items()):
        comparison.add(method, "served", scores(machines, seed, own))
    return comparison


def test_the_machine_left_out_has_no_say() -> None:
    """`lucky` is best on the fan by far and nowhere else, so it is chosen for every machine but the fan."""
    machines = [machine("fan"), machine("pump"), machine("valve")]
    comparison = compared(
        machines,
        {
            "frozen": {"fan": 0.5, "pump": 0.5, "valve": 0.5},
            "steady": {"fan": 1.0, "pump": 1.0, "valve": 1.0},
            "lucky": {"fan": 4.0, "pump": 0.7, "valve": 0.7},
        },
    )
    found = leave_one_out(comparison, ("frozen", "steady", "lucky"), "frozen")
    assert [(one.machine, one.method) for one in found] == [
        ("fan", "steady"), ("pump", "lucky"), ("valve", "lucky"), (ALL, ""),
    ]  # fmt: skip
    for one in found[:-1]:
        key = FIGURE._replace(method=one.method, machine=f"{one.machine}/section_00")
        assert one.figure.value == pytest.approx(comparison.interval(key).value)
        assert one.difference.value == pytest.approx(comparison.difference(key, "frozen").value)
        assert 0.5 < one.share <= 1
        assert one.difference.low < one.difference.value < one.difference.high
    assert found[-1].difference.value == pytest.approx(np.mean([one.difference.value for one in found[:-1]]))
    assert np.isnan(found[-1].share)


def test_a_machine_is_left_out_with_all_its_sections() -> None:
    machines = [machine("fan", "00"), machine("fan", "01"), machine("pump")]
    assert machine_names(machines) == ["fan", "pump"]
    comparison = compared(machines, {"a": {"fan": 3.0, "pump": 0.5}, "b": {"fan": 1.0, "pump": 1.5}})
    found = leave_one_out(comparison, ("a", "b"), "a")
    # With a section of the fan still there, `a` would be chosen for the fan.
    assert [(one.machine, one.method) for one in found[:-1]] == [("fan", "b"), ("pump", "a")]
    fan = [comparison.interval(FIGURE._replace(method="b", machine=f"fan/section_0{n}")).value for n in (0, 1)]
    assert found[0].figure.value == pytest.approx(np.mean(fan))


def test_the_interval_includes_the_choice() -> None:
    """Of two methods that are equally good elsewhere and far apart here, the interval reaches over both."""
    machines = [machine("fan"), machine("pump")]
    comparison = compared(machines, {"a": {"fan": 0.0, "pump": 1.0}, "b": {"fan": 3.0, "pump": 1.0}})
    fan = leave_one_out(comparison, ("a", "b"), "a")[0]
    assert 0.02 < fan.share < 0.98
    assert fan.figure.low < 0.6
    assert fan.figure.high > 0.95


def test_a_group_is_the_mean_of_its_methods_and_its_interval_holds_their_spread() -> None:
    machines = [machine("fan"), machine("pump")]
    shifts = {f"retain s{n}": dict.fromkeys(("fan", "pump"), shift) for n, shift in enumerate((0.2, 1.0, 1.8))}
    comparison = compared(machines, {"frozen": {"fan": 0.5, "pump": 0.5}, **shifts}, 2_000)
    comparison.add_group("retain", tuple(shifts))
    key = FIGURE._replace(machine=ALL)
    single = [comparison.interval(key._replace(method=name)) for name in shifts]
    group = comparison.interval(key._replace(method="retain"))
    assert group.value == pytest.approx(np.mean([one.value for one in single]))
    less = [comparison.difference(key._replace(method=name), "frozen").value for name in shifts]
    assert comparison.difference(key._replace(method="retain"), "frozen").value == pytest.approx(np.mean(less))
    # Standard error of a mean of three seeds, which the clips' own uncertainty is added to.
    error = np.std([one.value for one in single], ddof=1) / np.sqrt(3)
    assert group.high - group.low > 2 * 1.5 * error
    alone = comparison.replicates(key._replace(method="retain"))[1:].std()
    clips = np.mean([comparison.replicates(key._replace(method=name))[1:].std() for name in shifts])
    assert alone**2 == pytest.approx(error**2, rel=0.5)
    assert alone > clips
    assert leave_one_out(comparison, ("frozen", "retain"), "frozen")[0].method == "retain"
