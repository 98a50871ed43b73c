"""The event view against a slow reference, and what it finds."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import pytest

from offkey.vocabulary import Domain
from service.domain.backends.covariance import FOLDS, recording_folds
from service.domain.enrolled import Cuts, Details, Variants
from service.domain.events import VARIANT_WEIGHT, EventView

SOURCE, TARGET = Domain.SOURCE, Domain.TARGET
WIDTH = 3
Rows = list[tuple[int, np.ndarray]]  # recording and slices


class Own(NamedTuple):
    """Slices of one domain by recording."""

    windows: Rows
    variants: Rows
    cuts: Rows

    def without(self, recording: int) -> "Own":
        return Own(
            [one for one in self.windows if one[0] != recording],
            [one for one in self.variants if one[0] != recording],
            self.cuts,
        )

    @property
    def recordings(self) -> np.ndarray:
        return np.array([number for number, _ in self.windows])


def draw(seed: int, recordings: int, center: float = 0.0, *, variants: bool = True) -> Own:
    """Two windows of each recording, with three and four slices."""
    rng = np.random.default_rng(seed)

    def rows(steps: int) -> np.ndarray:
        return (center + rng.standard_normal((steps, WIDTH)) * [1.0, 0.5, 2.0]).astype(np.float32)

    numbers = np.repeat(np.arange(recordings), 2).tolist()
    return Own(
        [(number, rows(3 + at % 2)) for at, number in enumerate(numbers)],
        [(number, 3.0 + 2.0 * rows(2)) for number in range(recordings)] if variants else [],
        [(number, rows(2)) for number in numbers],
    )


def fit(domains: Mapping[Domain, Own]) -> tuple:
    details = {}
    for domain, own in domains.items():
        cuts, moved = own.cuts, own.variants
        details[domain] = Details(
            np.full(len(own.windows), 10.0),
            tuple(rows for _, rows in own.windows),
            Cuts(
                np.zeros((len(cuts), 2), np.float32),
                np.array([number for number, _ in cuts]),
                np.array([number for number, _ in cuts]),
                np.full(len(cuts), 1.0),
                tuple(rows for _, rows in cuts),
            ),
            Variants(
                np.zeros((len(moved), 2), np.float32),
                np.array([number for number, _ in moved]),
                tuple(rows for _, rows in moved),
                np.array([number for number, _ in moved]),
            )
            if moved
            else None,
        )
    numbers = {domain: own.recordings for domain, own in domains.items()}
    banks = {
        domain: np.random.default_rng(9).standard_normal((len(own.windows), 3)).astype(np.float32)
        for domain, own in domains.items()
    }
    return EventView.fit(details, numbers, recording_folds(banks, numbers))


def slow(domains: Mapping[Domain, Own], recordings: int, slices: np.ndarray) -> dict[Domain, np.ndarray]:
    """Fit and measure `(steps, width)` in the most direct way. `recordings` is the number that shrinkage uses."""
    means = {d: np.concatenate([rows for _, rows in own.windows]).mean(axis=0, dtype=float)
             for d, own in domains.items() if own.windows}  # fmt: skip
    about = [row - means[d] for d in means for _, rows in domains[d].windows for row in rows]
    moved = [row - means[d] for d in means for _, rows in domains[d].variants for row in rows]
    covariance = sum(np.outer(row, row) for row in about) / len(about)
    if moved:
        covariance = covariance + VARIANT_WEIGHT * sum(np.outer(row, row) for row in moved) / len(moved)
    share = max(0.05, 1 / recordings)
    covariance = (1 - share) * covariance + share * np.trace(covariance) / WIDTH * np.eye(WIDTH)
    inverse = np.linalg.inv(covariance)
    return {d: np.array([np.sqrt((row - mean) @ inverse @ (row - mean) / WIDTH) for row in slices])
            for d, mean in means.items()}  # fmt: skip


MACHINES = {
    "one domain": {SOURCE: draw(0, 5)},
    "two domains": {SOURCE: draw(1, 6), TARGET: draw(2, 3, center=4.0)},
    "variants in one domain": {SOURCE: draw(3, 4), TARGET: draw(4, 2, center=-2.0, variants=False)},
    "no variants": {SOURCE: draw(5, 30, variants=False)},
}


@pytest.mark.parametrize("name", list(MACHINES))
def test_measures_equal_those_of_a_slow_fit(name: str) -> None:
    domains = MACHINES[name]
    view = fit(domains)[0]
    queries = np.random.default_rng(8).standard_normal((7, WIDTH)).astype(np.float32) * 3
    expected = slow(domains, sum(len(np.unique(own.recordings)) for own in domains.values()), queries)
    found = view.measure(queries)
    assert set(found) == set(expected)
    for domain, measures in expected.items():
        np.testing.assert_allclose(found[domain], measures, rtol=1e-4)


@pytest.mark.parametrize("name", ["one domain", "two domains", "variants in one domain"])
def test_left_out_measures_equal_those_of_fits_without_the_recording(name: str) -> None:
    domains = MACHINES[name]
    _, left_out, cuts = fit(domains)
    recordings = sum(len(np.unique(own.recordings)) for own in domains.values())
    assert recordings <= FOLDS  # so that each recording is left out alone
    for domain, own in domains.items():
        for row, (number, slices) in enumerate(own.windows):
            reduced = {**domains, domain: own.without(number)}
            for bank, measures in slow(reduced, recordings, slices).items():
                assert left_out[domain][bank][row] == pytest.approx(measures.max(), rel=1e-4)
        for piece, (number, slices) in enumerate(own.cuts):
            reduced = {**domains, domain: own.without(number)}
            expected = slow(reduced, recordings, slices)[domain].max()
            assert cuts[domain][piece] == pytest.approx(expected, rel=1e-4)


def test_the_only_recording_of_a_domain_has_nothing_to_be_compared_with_in_it() -> None:
    domains = {SOURCE: draw(6, 4), TARGET: draw(7, 1, center=5.0)}
    _, left_out, cuts = fit(domains)
    assert np.isinf(left_out[TARGET][TARGET]).all()
    assert np.isinf(cuts[TARGET]).all()
    reduced = {SOURCE: domains[SOURCE]}
    for row, (_, slices) in enumerate(domains[TARGET].windows):
        expected = slow(reduced, 5, slices)[SOURCE].max()
        assert left_out[TARGET][SOURCE][row] == pytest.approx(expected, rel=1e-4)
    assert all(np.isfinite(left_out[SOURCE][bank]).all() for bank in domains)


def test_many_recordings_are_left_out_in_groups() -> None:
    domains = {SOURCE: draw(10, 2 * FOLDS)}
    left_out = fit(domains)[1][SOURCE][SOURCE]
    view = fit(domains)[0]
    inside = view.measure_each([slices for _, slices in domains[SOURCE].windows])[SOURCE]
    assert np.isfinite(left_out).all()
    assert np.mean(left_out) > np.mean(inside)  # a window is farther from the others than from a bank with itself


def test_a_brief_odd_slice_in_a_normal_window_is_found() -> None:
    domains = {SOURCE: draw(11, 20)}
    view, left_out, _ = fit(domains)
    window = np.random.default_rng(12).standard_normal((20, WIDTH)).astype(np.float32) * [1.0, 0.5, 2.0]
    (normal,) = view.measure_each([window])[SOURCE]
    odd = window.copy()
    odd[13] += [0.0, 6.0, 0.0]
    (found,) = view.measure_each([odd])[SOURCE]
    assert found > 1.2 * left_out[SOURCE][SOURCE].max() > normal
    assert view.measure(odd)[SOURCE].argmax() == 13
    # The mean of the window hardly moves, so a view of whole windows would not find it.
    mean = [window.mean(axis=0, keepdims=True), odd.mean(axis=0, keepdims=True)]
    assert np.diff([view.measure(one)[SOURCE][0] for one in mean])[0] < 0.2 * found


def test_the_measure_of_a_window_is_that_of_its_most_anomalous_slice() -> None:
    view = fit(MACHINES["two domains"])[0]
    windows = [np.random.default_rng(seed).standard_normal((steps, WIDTH)) for seed, steps in enumerate((1, 4, 2))]
    found = view.measure_each([one.astype(np.float32) for one in windows])
    for domain in (SOURCE, TARGET):
        assert found[domain].tolist() == pytest.approx([view.measure(one)[domain].max() for one in windows], rel=1e-5)
    assert view.measure_each([]) == {}


def test_directions_that_variants_move_count_less() -> None:
    own = draw(13, 12, variants=False)
    noise = [(number, rows + np.array([0, 8, 0], np.float32)) for number, rows in own.windows]
    plain, informed = fit({SOURCE: own})[0], fit({SOURCE: own._replace(variants=noise)})[0]
    along, across = np.array([[0, 8, 0]], np.float32), np.array([[8, 0, 0]], np.float32)
    assert informed.measure(along)[SOURCE][0] < 0.3 * plain.measure(along)[SOURCE][0]
    assert informed.measure(across)[SOURCE][0] > 0.7 * plain.measure(across)[SOURCE][0]
