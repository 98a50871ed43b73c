"""Two views in one detector: how they are fused, and what the threshold promises for clips of several lengths."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import pytest

from offkey.vocabulary import Domain, View
from service.domain.backends.covariance import Mahalanobis, recording_folds
from service.domain.detector import EVENT_WEIGHT, ClipScores, Detector
from service.domain.distance import nearest_rows
from service.domain.enrolled import Cuts, Details, Variants
from service.domain.events import EventView
from service.domain.threshold import Threshold, conformal_threshold, p_value

SOURCE, TARGET = Domain.SOURCE, Domain.TARGET
DIM, WIDTH = 4, 3
LONG, SHORT = 4.0, 1.0  # seconds of the enrolled clips, and of a cut


class Clip(NamedTuple):
    """A clip: embeddings `(windows, dim)`, and slices of each window."""

    vectors: np.ndarray
    slices: list[np.ndarray]


class Machine:
    """A Gaussian machine. A short window is off its recording by more than a long one, as an average over less is."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        self.center = 3.0 * rng.standard_normal(DIM)
        self.middle = rng.standard_normal(WIDTH)

    def window(self, recording: np.ndarray, seconds: float) -> tuple[np.ndarray, np.ndarray]:
        steps = round(2 * seconds)
        vector = self.center + recording[:DIM] + 0.4 / np.sqrt(seconds) * self.rng.standard_normal(DIM)
        slices = self.middle + recording[DIM:] + self.rng.standard_normal((steps, WIDTH))
        return (vector / np.linalg.norm(vector)).astype(np.float32), slices.astype(np.float32)

    def recording(self) -> np.ndarray:
        return 0.3 * self.rng.standard_normal(DIM + WIDTH)

    def clip(self, seconds: float = LONG, windows: int = 1) -> Clip:
        recording = self.recording()
        found = [self.window(recording, seconds) for _ in range(windows)]
        return Clip(np.stack([vector for vector, _ in found]), [slices for _, slices in found])

    def off(self, by: float) -> np.ndarray:
        """Offset of a recording, across the center: along it nothing shows in a unit vector."""
        found = np.zeros(DIM + WIDTH)
        found[:DIM] = by * np.linalg.svd(self.center[None])[2][1]
        return found

    def bank(self, clips: int, odd: float = 0.0) -> tuple[np.ndarray, Details]:
        """Embeddings of enrolled clips of one window, and their slices, cuts and a variant. The first may be odd."""
        recordings = [self.recording() + self.off(odd * (number == 0)) for number in range(clips)]
        whole = [self.window(recording, LONG) for recording in recordings]
        cuts = [self.window(recording, SHORT) for recording in recordings]
        numbers = np.arange(clips)
        vectors = np.stack([vector for vector, _ in whole])
        moved = vectors + 0.1 * self.rng.standard_normal(vectors.shape)
        details = Details(
            np.full(clips, LONG),
            tuple(slices for _, slices in whole),
            Cuts(
                np.stack([vector for vector, _ in cuts]),
                numbers,
                numbers,
                np.full(clips, SHORT),
                tuple(slices for _, slices in cuts),
            ),
            Variants(moved.astype(np.float32), numbers, tuple(slices[:2] + 0.5 for _, slices in whole), numbers),
        )
        return vectors, details


class Bank(NamedTuple):
    """A detector and what it was fitted to."""

    detector: Detector
    vectors: dict[Domain, np.ndarray]
    details: dict[Domain, Details]

    @classmethod
    def of(cls, enrolled: Mapping[Domain, tuple[np.ndarray, Details]]) -> "Bank":
        vectors = {domain: one for domain, (one, _) in enrolled.items()}
        details = {domain: one for domain, (_, one) in enrolled.items()}
        clips = {domain: np.arange(len(one)) for domain, one in vectors.items()}
        return cls(Detector.fit(vectors, clips, details=details), vectors, details)

    def score(self, clip: Clip, seconds: float | None = None, *, as_pieces: bool = False) -> ClipScores:
        near = {d: nearest_rows(clip.vectors, one, self.detector.neighbors) for d, one in self.vectors.items()}
        return self.detector.score(clip.vectors, near, clip.slices, seconds, as_pieces=as_pieces)

    def threshold(self, scores: ClipScores, rate: float) -> Threshold:
        return conformal_threshold(scores.reference.self_scores, rate)


def is_anomalous(bank: Bank, scores: ClipScores, rate: float) -> bool:
    return scores.score > bank.threshold(scores, rate).of_clip(scores.domains)


# -- how views are fused


@pytest.fixture(scope="module")
def bank() -> Bank:
    rng = np.random.default_rng(0)
    return Bank.of({SOURCE: Machine(rng).bank(12), TARGET: Machine(rng).bank(6)})


def test_self_scores_are_fused_as_scores_are(bank: Bank) -> None:
    recordings = {domain: np.arange(len(one)) for domain, one in bank.vectors.items()}
    steady = Mahalanobis.fit(bank.vectors, recordings, bank.details)
    _, left_out, _ = EventView.fit(bank.details, recordings, recording_folds(bank.vectors, recordings))
    events_decide = 0
    for domain in (SOURCE, TARGET):
        views = (steady.left_out[domain][domain], left_out[domain][domain])
        standardized = [
            (own - scale.mu) / scale.sigma for own, scale in zip(views, bank.detector.whole.scales[domain], strict=True)
        ]
        expected = np.maximum(standardized[0], EVENT_WEIGHT * standardized[1])
        np.testing.assert_allclose(bank.detector.self_scores[domain].scores, expected, rtol=1e-6)
        events_decide += int((EVENT_WEIGHT * standardized[1] > standardized[0]).sum())
    assert 0 < events_decide < 18  # both views matter here


def test_scores_are_the_larger_view_and_the_smaller_domain(bank: Bank) -> None:
    rng = np.random.default_rng(5)
    views = set()
    for _ in range(20):
        clip = Clip(bank.vectors[SOURCE][:1] + 0.1 * rng.standard_normal((1, DIM)).astype(np.float32),
                    [bank.details[SOURCE].slices[0] + rng.standard_normal((8, WIDTH)).astype(np.float32)])  # fmt: skip
        found = bank.score(clip)
        assert bank.detector.events is not None
        steady = bank.detector._fitted.measure(clip.vectors, dict.fromkeys((SOURCE, TARGET)))
        events = bank.detector.events.measure(clip.slices[0])
        for domain, (one, two) in bank.detector.whole.scales.items():
            parts = (
                (steady[domain][0] - one.mu) / one.sigma,
                EVENT_WEIGHT * (events[domain].max() - two.mu) / two.sigma,
            )
            assert found.domains[domain] == pytest.approx(max(parts), rel=1e-5)
            if found.domains[domain] == found.score:
                assert found.view is (View.EVENT if parts[1] > parts[0] else View.STEADY)
                assert found.slice == (int(events[domain].argmax()) if parts[1] > parts[0] else None)
        assert found.score == min(found.domains.values())
        views.add(found.view)
    assert views == {View.STEADY, View.EVENT}


def test_a_brief_event_decides_by_the_slice_that_it_is_in(bank: Bank) -> None:
    vectors, slices = bank.vectors[SOURCE][3:4], bank.details[SOURCE].slices[3].copy()
    assert bank.score(Clip(vectors, [slices])).score < 2
    slices[5] += 15.0
    found = bank.score(Clip(vectors, [slices]))
    assert (found.view, found.window, found.slice) == (View.EVENT, 0, 5)
    assert is_anomalous(bank, found, 0.1)


def test_without_slices_of_every_window_there_is_no_event_view(bank: Bank) -> None:
    without = {domain: Details(one.ends) for domain, one in bank.details.items()}
    clips = {domain: np.arange(len(one)) for domain, one in bank.vectors.items()}
    detector = Detector.fit(bank.vectors, clips, details=without)
    assert detector.events is None
    assert {len(scales) for scales in detector.whole.scales.values()} == {1}


def test_short_clips_are_compared_with_the_cuts(bank: Bank) -> None:
    whole, short = bank.detector.reference(LONG), bank.detector.reference(SHORT)
    assert whole is bank.detector.whole is bank.detector.reference(None) is bank.detector.reference(60.0)
    assert short.comparable
    for domain in (SOURCE, TARGET):
        assert short.scales[domain][0].mu > 1.1 * whole.scales[domain][0].mu  # an average over less
        assert short.scales[domain][1].mu < whole.scales[domain][1].mu  # the largest of fewer
    assert not bank.detector.reference(0.5).comparable


# -- what is promised


class Rate(NamedTuple):
    """Mean over trials, and three standard errors of it."""

    mean: float
    error: float

    @classmethod
    def of(cls, alarms: list[float]) -> "Rate":
        return cls(float(np.mean(alarms)), float(3 * np.std(alarms) / np.sqrt(len(alarms))))


def test_both_views_together_keep_the_promise_for_whole_and_for_short_clips() -> None:
    rng = np.random.default_rng(1)
    trials, fresh, clips, rate = 120, 6, 19, 0.1
    alarms: dict[str, list[float]] = {"whole": [], "short": [], "short as if whole": []}
    decided_by_events = 0
    for _ in range(trials):
        machine = Machine(rng)
        bank = Bank.of({SOURCE: machine.bank(clips)})
        whole = [bank.score(machine.clip(), LONG) for _ in range(fresh)]
        shorts = [machine.clip(SHORT) for _ in range(fresh)]
        short = [bank.score(one, SHORT, as_pieces=True) for one in shorts]
        naive = [bank.score(one) for one in shorts]
        decided_by_events += sum(one.view is View.EVENT for one in whole)
        for name, found in (("whole", whole), ("short", short), ("short as if whole", naive)):
            alarms[name].append(float(np.mean([is_anomalous(bank, one, rate) for one in found])))
    for name in ("whole", "short"):
        realized = Rate.of(alarms[name])
        assert realized.mean <= rate + realized.error, name
        assert realized.mean >= rate - 2 / (clips + 1) - realized.error, name  # and it is not needlessly deaf
    assert 0.05 < decided_by_events / (trials * fresh) < 0.95
    assert Rate.of(alarms["short as if whole"]).mean > 2 * rate  # so the comparison with cuts is what keeps it


def test_the_promise_holds_for_the_clips_of_either_domain_with_two_views() -> None:
    rng = np.random.default_rng(2)
    trials, fresh, rate = 80, 6, 0.1
    numbers = {SOURCE: 19, TARGET: 9}
    alarms: dict[Domain, list[float]] = {domain: [] for domain in numbers}
    for _ in range(trials):
        machines = {domain: Machine(rng) for domain in numbers}
        bank = Bank.of({domain: machine.bank(numbers[domain]) for domain, machine in machines.items()})
        for domain, machine in machines.items():
            found = [bank.score(machine.clip(), LONG) for _ in range(fresh)]
            alarms[domain].append(float(np.mean([is_anomalous(bank, one, rate) for one in found])))
            low = [p_value(one.reference.self_scores, one.domains) <= rate + 1e-9 for one in found]
            assert low == [is_anomalous(bank, one, rate) for one in found]
    for own in alarms.values():
        realized = Rate.of(own)
        assert 0 < realized.mean <= rate + realized.error


def test_longer_clips_raise_no_more_than_the_promised_share() -> None:
    """Six windows against banks of one: the largest of six scores would exceed a threshold for one."""
    rng = np.random.default_rng(3)
    trials, fresh, windows, rate = 100, 5, 6, 0.1
    alarms, largest = [], []
    for _ in range(trials):
        machine = Machine(rng)
        bank = Bank.of({SOURCE: machine.bank(19)})
        found = [bank.score(machine.clip(windows=windows), windows * LONG) for _ in range(fresh)]
        assert all(one.windows.shape == (windows,) and one.score <= one.windows.max() for one in found)
        alarms.append(float(np.mean([is_anomalous(bank, one, rate) for one in found])))
        limits = [bank.threshold(one, rate).value for one in found]
        largest.append(float(np.mean([one.windows.max() > own for one, own in zip(found, limits, strict=True)])))
    realized = Rate.of(alarms)
    assert realized.mean <= rate + realized.error
    assert np.mean(largest) > 1.8 * rate


def test_ten_target_clips_do_not_mask_faults_of_the_source() -> None:
    """One odd clip of ten raises the threshold of its own domain, and with it the larger of the two thresholds."""
    rng = np.random.default_rng(4)
    rate, faults = 0.05, 60
    shares: dict[str, list[float]] = {"alone": [], "both": [], "old rule": []}
    for _ in range(4):
        machine, other = Machine(rng), Machine(rng)
        source, target = machine.bank(200), other.bank(10, odd=2.0)
        alone, both = Bank.of({SOURCE: source}), Bank.of({SOURCE: source, TARGET: target})
        clips = []
        for _ in range(faults):
            vector, slices = machine.window(machine.recording() + machine.off(1.3), LONG)
            clips.append(Clip(vector[None], [slices]))
        without, found = ([bank.score(clip, LONG) for clip in clips] for bank in (alone, both))
        shares["alone"].append(float(np.mean([is_anomalous(alone, one, rate) for one in without])))
        shares["both"].append(float(np.mean([is_anomalous(both, one, rate) for one in found])))
        old = [one.score > max(both.threshold(one, rate).values.values()) for one in found]
        shares["old rule"].append(float(np.mean(old)))
    means = {name: float(np.mean(own)) for name, own in shares.items()}
    assert 0.5 < means["alone"] < 0.98  # faults that are neither obvious nor hidden
    assert means["both"] >= 0.9 * means["alone"]
    assert means["old rule"] < 0.9 * means["alone"]
