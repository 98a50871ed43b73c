"""Altered clips are outside of the envelope, and healthy clips rarely are."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from offkey.vocabulary import Measure
from service.domain.acoustics import Acoustics
from service.domain.envelope import Envelope, closest_differences

BANDS = 17
SECONDS = 10.0


def draw(count: int, seed: int = 0, level: float = -24.0) -> list[Acoustics]:
    """Clips of one condition: 1 dB of level and 0.3 dB of each band about."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        own = level + rng.standard_normal()
        bands = own - 5.0 - 1.5 * np.arange(BANDS) + 0.3 * rng.standard_normal(BANDS)
        found.append(Acoustics(own, own - 2 + 0.2 * rng.standard_normal(), 7_000.0, 0.0, tuple(bands), 16_000, 1))
    return found


def envelope(clips: Sequence[Acoustics], recordings: Sequence[int] | None = None) -> Envelope:
    found = Envelope.of(clips, range(len(clips)) if recordings is None else recordings)
    assert found is not None
    return found


def shifted(clip: Acoustics, gain_db: float) -> Acoustics:
    return replace(
        clip,
        level_dbfs=clip.level_dbfs + gain_db,
        noise_floor_dbfs=clip.noise_floor_dbfs + gain_db,
        bands_dbfs=tuple(band + gain_db for band in clip.bands_dbfs),
    )


def banded(clip: Acoustics, first: int, gain_db: float) -> Acoustics:
    """With the bands from `first` on louder."""
    bands = [band + gain_db * (at >= first) for at, band in enumerate(clip.bands_dbfs)]
    return replace(clip, bands_dbfs=tuple(bands))


def kinds(own: Envelope, clip: Acoustics) -> set[Measure]:
    return {one.measure for one in own.differences(clip, SECONDS)}


@pytest.mark.parametrize("count", [2, 3, 5, 20, 200])
def test_clips_of_the_same_condition_are_rarely_outside(count: int) -> None:
    outside = [bool(kinds(envelope(draw(count, seed)), draw(1, 1_000 + seed)[0])) for seed in range(200)]
    assert np.mean(outside) <= 0.01


@pytest.mark.parametrize("count", [2, 20])
@pytest.mark.parametrize(
    ("altered", "expected"),
    [
        (lambda clip: shifted(clip, -25.0), Measure.LEVEL),
        (lambda clip: shifted(clip, 25.0), Measure.LEVEL),
        (lambda clip: replace(clip, noise_floor_dbfs=clip.noise_floor_dbfs - 25), Measure.PAUSES),
        (lambda clip: replace(clip, bandwidth_hz=1_500.0), Measure.BANDWIDTH),
        (lambda clip: banded(clip, 12, 15.0), Measure.SPECTRUM),
        (lambda clip: replace(clip, clipped=0.03), Measure.CLIPPING),
        (lambda clip: replace(clip, sample_rate=8_000), Measure.SAMPLE_RATE),
        (lambda clip: replace(clip, channels=2), Measure.CHANNELS),
    ],
)
def test_the_altered_measurement_is_reported(count: int, altered: object, expected: Measure) -> None:
    assert callable(altered)
    assert kinds(envelope(draw(count)), altered(draw(1, 9)[0])) == {expected}


def test_the_message_about_the_level_has_its_numbers() -> None:
    (found,) = envelope(draw(20)).differences(shifted(draw(1, 9)[0], -18.0), SECONDS)
    assert "dB below all 20 enrolled clips (-4" in found.detail
    assert found.detail.endswith("The score is not reliable.")


def test_a_higher_sample_rate_is_no_difference() -> None:
    assert not kinds(envelope(draw(20)), replace(draw(1, 9)[0], sample_rate=48_000))


def test_few_recordings_have_wide_margins() -> None:
    quiet = shifted(draw(1, 9)[0], -5.5)
    assert kinds(envelope(draw(100)), quiet) == {Measure.LEVEL}
    assert not kinds(envelope(draw(3)), quiet)
    assert not kinds(envelope(draw(100), [0] * 100), quiet)  # pieces of one recording


def test_pieces_of_one_recording_are_not_compared_with_each_other() -> None:
    """Two recordings of which each is cut into equal pieces: the difference of 0 between pieces does not count."""
    first, second = draw(1, 1)[0], banded(draw(1, 2)[0], 8, 3.0)
    pieces = [first] * 10 + [second] * 10
    assert envelope(pieces, [0] * 10 + [1] * 10).spectrum_tolerance > 1.0
    assert envelope(pieces).spectrum_tolerance == pytest.approx(0.0, abs=1e-6)


def test_an_outlier_does_not_widen_the_tolerance() -> None:
    other = banded(draw(1, 9)[0], 12, 6.0)
    odd = banded(draw(1, 10)[0], 0, -30.0)
    assert kinds(envelope([*draw(30), odd]), other) == {Measure.SPECTRUM}


def test_a_clip_that_fits_either_domain_is_inside() -> None:
    source, target = envelope(draw(20)), envelope(draw(20, 1, level=-50.0))
    clip = draw(1, 9, level=-50.0)[0]
    assert closest_differences([source], clip, SECONDS)
    assert not closest_differences([source, target], clip, SECONDS)
    between = shifted(clip, 8.0)  # of the domain that it fits better
    assert closest_differences([source, target], between, SECONDS) == target.differences(between, SECONDS)
    assert closest_differences([], clip, SECONDS) == []


def test_short_clips_have_a_wider_tolerance() -> None:
    clip = banded(draw(1, 9)[0], 12, 2.7)
    own = envelope(draw(20))
    assert own.differences(clip, 10.0)
    assert not own.differences(clip, 0.1)


@pytest.mark.parametrize("count", [0, 1])
def test_one_clip_has_no_range(count: int) -> None:
    assert Envelope.of(draw(count), range(count)) is None


def test_identical_clips_give_finite_margins() -> None:
    own = envelope(draw(1) * 5)
    assert not kinds(own, draw(1)[0])
    assert np.isfinite(own.margins).all()
    assert kinds(own, shifted(draw(1)[0], -10)) == {Measure.LEVEL}


@settings(max_examples=50, deadline=None)
@given(st.integers(2, 30), st.integers(0, 10_000), st.permutations(range(30)))
def test_enrolled_clips_are_inside_in_any_order(count: int, seed: int, order: list[int]) -> None:
    clips = draw(count, seed)
    own = envelope([clips[at] for at in order if at < count])
    assert not any(kinds(own, clip) for clip in clips)
    other = shifted(banded(clips[0], 3, 9.0), 30.0)
    assert own.differences(other, SECONDS) == envelope(clips).differences(other, SECONDS)


def test_a_large_bank_is_fitted_in_a_moment() -> None:
    assert envelope(draw(3_000)).spectrum_tolerance > 0
