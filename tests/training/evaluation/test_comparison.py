"""How figures are put together: seeds, machines, conditions, differences and the gap."""

import itertools
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from training.evaluation.comparison import ALL, Cell, Comparison, Key, cells, summaries
from training.evaluation.tree import JudgedMachine, read_tree

SNRS, SEEDS = (0.0, -5.0), 3
NOISY = Cell("noisy", None)


@pytest.fixture(scope="module")
def machines(tree: Path) -> list[JudgedMachine]:
    return read_tree(tree)


def made_up(machines: list[JudgedMachine], seed: int, shift: float) -> dict[tuple[str, Cell], list[np.ndarray]]:
    rng = np.random.default_rng(seed)
    return {
        (machine.name, cell): [
            rng.normal(size=len(machine.test)) + shift * machine.anomalous
            for _ in range(SEEDS if cell.snr_db is not None else 1)
        ]
        for machine in machines
        for cell, _ in cells(SNRS)
    }


@pytest.fixture(scope="module")
def compared(machines: list[JudgedMachine]) -> tuple[Comparison, dict[str, dict[tuple[str, Cell], list[np.ndarray]]]]:
    comparison = Comparison(machines, SNRS, SEEDS, 200)
    scores = {
        "frozen": made_up(machines, 0, 0.5),
        "student": made_up(machines, 1, 1.0),
        "oracle": made_up(machines, 2, 2.0),
        "worse": made_up(machines, 3, 0.0),
    }
    for name, own in scores.items():
        comparison.add(name, "nearest", own)
    return comparison, scores


def test_figures_are_plain_means_of_the_areas(machines, compared) -> None:
    comparison, scores = compared
    areas = {
        (machine.name, cell): np.mean(
            [roc_auc_score(machine.anomalous, s) for s in scores["student"][machine.name, cell]]
        )
        for machine in machines
        for cell, _ in cells(SNRS)
    }

    def figure(machine: str, cell: Cell) -> float:
        found = comparison.interval(Key("student", "nearest", machine, cell, "auc"))
        assert found.low <= found.value <= found.high
        return float(found.value)

    names = [machine.name for machine in machines]
    for name, (cell, _) in itertools.product(names, cells(SNRS)):
        assert figure(name, cell) == pytest.approx(areas[name, cell])
    for cell, _ in cells(SNRS):
        assert figure(ALL, cell) == pytest.approx(np.mean([areas[name, cell] for name in names]))
    mismatch = [
        areas[n, Cell(c, -5.0)] for n in names for c in ("stationary to nonstationary", "nonstationary to stationary")
    ]
    assert figure(ALL, Cell("mismatch", -5.0)) == pytest.approx(np.mean(mismatch))
    noisy = [areas[n, cell] for n in names for cell, _ in cells(SNRS) if cell.snr_db is not None]
    assert len(noisy) == 2 * 8
    assert figure(ALL, NOISY) == pytest.approx(np.mean(noisy))
    assert [str(cell) for cell in summaries(SNRS)] == [
        "clean", "matched 0 dB", "mismatch 0 dB", "matched -5 dB", "mismatch -5 dB", "noisy",
    ]  # fmt: skip


def test_the_official_score_is_of_each_seed_over_all_machines(machines, compared) -> None:
    comparison, scores = compared
    cell = Cell("stationary", 0.0)
    seeds = []
    for seed in range(SEEDS):
        parts = []
        for machine in machines:
            own = scores["student"][machine.name, cell][seed]
            parts.append(roc_auc_score(machine.anomalous, own, max_fpr=0.1))
            for of_domain in (machine.target, ~machine.target):
                if of_domain.any():
                    kept = of_domain | machine.anomalous
                    parts.append(roc_auc_score(machine.anomalous[kept], own[kept]))
        assert len(parts) == 5  # the pump has no target domain
        seeds.append(len(parts) / sum(1 / part for part in parts))
    found = comparison.interval(Key("student", "nearest", ALL, cell, "official"))
    assert found.value == pytest.approx(np.mean(seeds))


def test_what_is_not_defined_is_none(compared) -> None:
    comparison, _ = compared
    key = Key("student", "nearest", "pump-synthetic", NOISY, "auc_target")
    assert comparison.interval(key) is None
    assert comparison.difference(key, "frozen") is None
    assert comparison.gap(key, "frozen", "oracle") is None
    assert comparison.interval(key._replace(machine=ALL)) is not None


def test_differences_are_paired(machines: list[JudgedMachine]) -> None:
    """Two methods that agree but for a little differ by little, however uncertain each is."""
    comparison = Comparison(machines, SNRS, SEEDS, 200)
    scores = made_up(machines, 4, 0.7)
    rng = np.random.default_rng(5)
    comparison.add("a", "nearest", scores)
    comparison.add(
        "b", "nearest", {key: [s + 0.002 * rng.normal(size=len(s)) for s in own] for key, own in scores.items()}
    )
    key = Key("b", "nearest", ALL, NOISY, "auc")
    alone, apart = comparison.interval(key), comparison.difference(key, "a")
    assert apart.high - apart.low < 0.2 * (alone.high - alone.low)
    assert comparison.difference(key, "b").high == 0


def test_share_of_the_gap(compared) -> None:
    comparison, _ = compared
    key = Key("student", "nearest", ALL, NOISY, "auc")
    frozen, student, oracle = (
        comparison.interval(key._replace(method=m)).value for m in ("frozen", "student", "oracle")
    )
    gap = comparison.gap(key, "frozen", "oracle")
    assert gap.size.value == pytest.approx(oracle - frozen)
    assert gap.share.value == pytest.approx((student - frozen) / (oracle - frozen))
    assert gap.bounded
    assert gap.share.low < gap.share.value < gap.share.high
    none = comparison.gap(key, "frozen", "worse")  # an oracle below the reference leaves nothing to close
    assert none.size.value < 0
    assert none.share is None
