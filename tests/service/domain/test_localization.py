"""Localization finds planted faults, and p-values of healthy windows are valid."""

from collections.abc import Sequence

import numpy as np
import pytest

from offkey.vocabulary import Domain
from service.domain.localization import MOST_REGIONS, Reference
from service.domain.spectrogram import Spectrogram

SHAPE = (20, 35)


def windows(rng: np.random.Generator, count: int, mean: float = 0.0) -> list[Spectrogram]:
    """Each recording has a spectrum of its own, and cells that vary around it."""
    spectra = mean + 0.3 * rng.standard_normal((count, 1, SHAPE[1]))
    return list((spectra + 0.2 * rng.standard_normal((count, *SHAPE))).astype(np.float32))


def fit(found: Sequence[Spectrogram], recordings: Sequence[int] | None = None) -> Reference:
    numbers = np.arange(len(found)) if recordings is None else np.array(recordings)
    return Reference.fit({Domain.SOURCE: found}, {Domain.SOURCE: numbers})


@pytest.mark.parametrize("louder", [True, False])
def test_a_planted_block_is_found_where_it_is(louder: bool) -> None:
    rng = np.random.default_rng(1)
    reference = fit(windows(rng, 20))
    window = windows(rng, 1)[0]
    window[4:9, 10:13] += 4.0 if louder else -4.0
    found = reference.locate(window)
    region = found.regions[0]
    assert (region.steps, region.bands, region.louder) == ((4, 9), (10, 13), louder)
    assert region.deviation > 8 > 6 > found.usual
    assert region.p_value == pytest.approx(1 / 21)
    assert found.profile.shape == (20,)
    assert set(np.argsort(found.profile)[-5:]) == set(range(4, 9))
    assert found.profile.max() == region.deviation


def test_regions_come_strongest_first_and_share_no_cell() -> None:
    rng = np.random.default_rng(2)
    reference = fit(windows(rng, 20))
    window = windows(rng, 1)[0]
    for number, size in enumerate((5.0, 8.0, 3.5, 4.0)):
        window[5 * number : 5 * number + 2, 8 * number : 8 * number + 2] += size
    regions = reference.locate(window).regions
    assert [region.steps[0] for region in regions] == [5, 0, 15]
    assert len(regions) == MOST_REGIONS
    assert sorted((region.deviation for region in regions), reverse=True) == [region.deviation for region in regions]
    covered = np.zeros(SHAPE, dtype=int)
    for region in regions:
        covered[slice(*region.steps), slice(*region.bands)] += 1
    assert covered.max() == 1


def test_a_healthy_window_keeps_what_its_p_value_promises() -> None:
    """Exchangeable recordings: a share of at most p have a p-value of p or less.

    It is less: a recording that was left out was held against one fewer than a new one is.
    """
    rng = np.random.default_rng(3)
    p_values = []
    for _ in range(400):
        *enrolled, new = windows(rng, 10)
        regions = fit(enrolled).locate(new).regions
        p_values.append(regions[0].p_value if regions else 1.0)
    assert 0.02 < np.mean(np.array(p_values) <= 0.1) < 0.12
    assert 0.3 < np.mean(np.array(p_values) < 1.0) < 0.55  # about half of them have a region


def test_a_recording_is_left_out_as_a_whole() -> None:
    """The windows of an unusual recording have no part in the mean that they are compared with."""
    rng = np.random.default_rng(4)
    normal = windows(rng, 8)
    odd = [one + np.float32(6.0) for one in windows(rng, 4)]
    apart = fit([*normal, *odd], [*range(8), 8, 8, 8, 8])
    (reference,) = apart._by_domain.values()
    rest = np.concatenate(normal).astype(np.float64)  # all but the odd recording
    for score, window in zip(reference.self_scores.scores[8:], odd, strict=True):
        deviation = np.maximum(rest.std(axis=0), 0.25 * np.median(rest.std(axis=0)))
        assert score == pytest.approx(np.abs((window - rest.mean(axis=0)) / deviation).max(), rel=1e-6)
    assert reference.self_scores.recordings == 9


def test_the_order_of_enrollment_changes_nothing() -> None:
    rng = np.random.default_rng(5)
    enrolled, new = windows(rng, 9), windows(rng, 1)[0] + np.float32(1.0)
    one, other = fit(enrolled).locate(new), fit(enrolled[::-1]).locate(new)
    assert one.profile == pytest.approx(other.profile)
    assert [region.p_value for region in one.regions] == [region.p_value for region in other.regions]


def test_a_window_is_compared_with_the_domain_it_is_closer_to() -> None:
    rng = np.random.default_rng(6)
    banks = {Domain.SOURCE: windows(rng, 10), Domain.TARGET: windows(rng, 3, mean=5.0)}
    numbers = {domain: np.arange(len(found)) for domain, found in banks.items()}
    reference = Reference.fit(banks, numbers)
    for mean, domain in ((0.0, Domain.SOURCE), (5.0, Domain.TARGET)):
        assert reference.locate(windows(rng, 1, mean=mean)[0]).domain is domain
    numbers[Domain.TARGET][:] = 0  # a single recording has no deviation
    alone = Reference.fit(banks, numbers)
    assert alone.domains == {Domain.SOURCE}
    assert alone.locate(banks[Domain.TARGET][0]).domain is Domain.SOURCE


@pytest.mark.parametrize("level", [0.0, -1.3])
def test_copies_and_constant_bands_give_finite_deviations(level: float) -> None:
    same = [np.full(SHAPE, level, dtype=np.float32)] * 3
    reference = fit(same)
    quiet = reference.locate(same[0])
    assert quiet.regions == ()
    assert not quiet.profile.any()
    changed = same[0].copy()
    changed[3, 4] += 1.0
    found = reference.locate(changed)
    assert [(region.steps, region.bands) for region in found.regions] == [((3, 4), (4, 5))]
    assert np.isfinite(found.profile).all()


def test_windows_of_other_lengths_are_compared_step_by_step() -> None:
    rng = np.random.default_rng(7)
    reference = fit([window[: 3 + number] for number, window in enumerate(windows(rng, 10))])
    assert reference.locate(windows(rng, 1)[0][:1]).profile.shape == (1,)


def test_without_spectrograms_there_is_no_domain_to_compare_with() -> None:
    assert fit([]).domains == frozenset()
