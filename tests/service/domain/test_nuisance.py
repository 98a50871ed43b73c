"""Variants and cuts of enrolled clips: what changes, by how much, and that equal seeds change the same."""

import itertools

import numpy as np
import pytest

from service.domain import nuisance
from service.domain.lengths import CUT_SECONDS
from service.domain.nuisance import cuts, noise_library, variant_count, variants

RATE = 16_000


def window(seconds: float = 6.0, seed: int = 0) -> np.ndarray:
    return 0.03 * np.random.default_rng(seed).standard_normal(round(seconds * RATE), dtype=np.float32)


def spectrum(samples: np.ndarray) -> np.ndarray:
    """Powers by frequency, `(bins,)`."""
    return np.square(np.abs(np.fft.rfft(samples.astype(np.float64))))


def hertz(samples: np.ndarray) -> np.ndarray:
    return np.fft.rfftfreq(len(samples), 1 / RATE)


def test_the_first_clips_have_most_variants() -> None:
    assert [variant_count(enrolled) for enrolled in range(34)] == [16] * 8 + [8] * 8 + [4] * 16 + [0] * 2
    assert variant_count(100_000) == 0


def test_equal_seeds_give_equal_variants() -> None:
    clip = window(1.0)
    once, again, other = (list(variants(clip, RATE, 8, seed)) for seed in (5, 5, 6))
    for one, same, another in zip(once, again, other, strict=True):
        np.testing.assert_array_equal(one, same)
        assert not np.allclose(one, another, atol=1e-3)


@pytest.mark.parametrize("seconds", [1.0, 1.37, 6.0, 10.0])
def test_variants_have_the_length_of_the_window_and_one_level(seconds: float) -> None:
    clip = window(seconds)
    found = list(variants(clip + np.float32(0.2), RATE, 16, 1))  # an offset is not sound
    assert len(found) == 16
    for one in found:
        assert (one.shape, one.dtype) == (clip.shape, np.float32)
        assert one.std() == pytest.approx(0.1, rel=1e-3)
        assert one.mean() == pytest.approx(0.0, abs=1e-4)


def test_no_variant_is_another_one_or_the_window_itself() -> None:
    clip = window(2.0)
    for one, other in itertools.combinations([0.1 * clip / clip.std(), *variants(clip, RATE, 16, 2)], 2):
        assert np.abs(one - other).max() > 1e-3


@pytest.mark.parametrize("count", [16, 8, 4])
def test_three_quarters_of_the_variants_have_other_noise(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The noise is a tone that is not in the clip. Another recorder's floor is the same tone, but 25 dB lower."""

    def tone(length: int, *_: object) -> np.ndarray:
        return (np.sqrt(2) * np.sin(2 * np.pi * 7_900 * np.arange(length) / RATE)).astype(np.float32)

    monkeypatch.setattr(nuisance, "_noise", tone)
    clip = np.sin(2 * np.pi * 400 * np.arange(2 * RATE) / RATE).astype(np.float32)
    shares = []
    for seed in range(5):
        for one in variants(clip, RATE, count, seed):
            power = spectrum(one)
            shares.append(power[hertz(one) > 7_850].sum() / power.sum())
    noisy = np.array(shares).reshape(5, count) > 0.2  # -5 dB is 0.24
    assert noisy.sum(axis=1).tolist() == [3 * count // 4] * 5


def test_the_clip_is_five_db_below_to_five_db_above_the_noise() -> None:
    clip = window()
    unit = clip / np.linalg.norm(clip)
    ratios = []
    for seed in range(4):
        for one in itertools.islice(variants(clip, RATE, 16, seed), 12):
            along = float(one @ unit)
            ratios.append(20 * np.log10(along / np.linalg.norm(one - along * unit)))
    assert min(ratios) >= -5.2  # the noise is not quite orthogonal to the clip
    assert max(ratios) <= 5.2
    assert min(ratios) < -3
    assert max(ratios) > 3


def test_silence_stays_finite() -> None:
    found = list(variants(np.zeros(RATE, np.float32), RATE, 16, 0))
    assert len(found) == 16
    assert all(np.isfinite(one).all() for one in found)


def test_the_codec_removes_everything_above_its_cut() -> None:
    clip = window(2.0)
    before = spectrum(clip)
    highest = []
    for seed in range(12):
        after = spectrum(nuisance._codec(clip, RATE, np.random.default_rng(seed)))
        bands = np.add.reduceat(after, np.arange(0, len(after), 100)) / np.add.reduceat(
            before, np.arange(0, len(before), 100)
        )  # by 50 Hz
        cut = 50 * int(np.flatnonzero(bands > 0.05)[-1] + 1)
        highest.append(cut)
        assert after[hertz(clip) > cut + 100].max() < 1e-3 * before.mean()
        assert bands[: 5_000 // 50].min() > 0.05  # nothing is missing further down
    assert 5_400 <= min(highest) < 6_200
    assert 6_800 < max(highest) <= 7_600


def test_a_shifted_clip_is_the_same_sound_from_another_moment() -> None:
    rate, fade = 1_000, 50
    clip = np.arange(2_000, dtype=np.float32)
    for seed in range(20):
        found = nuisance._shift(clip, rate, np.random.default_rng(seed))
        start = int(found[0])
        assert found.shape == clip.shape
        expected = np.concatenate([clip[start:], clip[fade:start], clip[start:]])[: len(clip)]
        apart = np.flatnonzero(found != expected)
        assert len(apart) <= fade  # all but the seam
        assert np.all((apart >= 2_000 - start - fade) & (apart < 2_000 - start))


@pytest.mark.parametrize(("seconds", "expected"), [(10.0, 7), (6.5, 6), (4.0, 4), (1.0, 0), (0.5, 0)])
def test_a_window_is_cut_to_each_shorter_length(seconds: float, expected: int) -> None:
    rate = 100
    samples = np.arange(round(seconds * rate), dtype=np.float32)
    found = list(cuts(samples, rate, 3))
    assert [len(one) / rate for one in found] == [cut for cut in CUT_SECONDS if cut < seconds]
    assert len(found) == expected
    for one in found:
        assert one.tolist() == list(np.arange(one[0], one[0] + len(one)))  # a piece without gaps
    assert [one[0] for one in cuts(samples, rate, 3)] == [one[0] for one in found]


def test_cuts_begin_anywhere() -> None:
    starts = [next(cuts(np.arange(1_000, dtype=np.float32), 100, seed))[0] for seed in range(200)]
    assert min(starts) < 60
    assert max(starts) > 840


def test_the_noises_of_the_library_are_finite_and_of_unit_power() -> None:
    library = noise_library(RATE)
    assert library.shape == (100, 6 * RATE)
    assert np.isfinite(library).all()
    exact = library.astype(np.float32)
    np.testing.assert_allclose(exact.mean(axis=1, dtype=np.float64), 0.0, atol=1e-3)
    np.testing.assert_allclose(np.square(exact).mean(axis=1, dtype=np.float64), 1.0, atol=2e-3)
    nearest = np.abs(exact[:, :RATE] @ exact[:, :RATE].T / RATE - np.eye(100)) < 0.95
    assert nearest[~np.eye(100, dtype=bool)].all()  # no noise is there twice
