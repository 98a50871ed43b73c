"""Anomaly scores from embeddings: two views, normalized by leave-one-out scores of source and target banks.

The steady view measures how far a window is from each domain's bank, by a backend. The event view measures how far the
most anomalous half second is from the enrolled half seconds. Each measure is standardized by the mean and deviation of
the measures that the domain's own clips have with their recording left out. The larger view counts, because a fault may
show in either one. The score of a window is the smallest one over the domains, because a window is normal if it fits
either domain. No statistic is computed over clips that are scored.

A clip is a recording of its own unless enrollment names the recording that it was cut from. Pieces of one recording are
closer to each other than a new recording is to any of them, so they are left out together.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from offkey.errors import ErrorKind, OffkeyError
from offkey.vocabulary import Domain, View
from service.domain.backends import BACKENDS, DEFAULT_BACKEND
from service.domain.backends.base import Backend, LeftOut, Measures
from service.domain.backends.covariance import recording_folds
from service.domain.backends.neighbors import Nearest
from service.domain.distance import Near, Vectors
from service.domain.enrolled import Details
from service.domain.events import SIGMA_FLOOR, EventView
from service.domain.lengths import TOLERANCE, LengthCurves, in_blocks
from service.domain.self_scores import SelfScores
from service.domain.slices import Slices

MIN_SCALE_RECORDINGS = 5  # fewer recordings can agree by chance, so their deviation is no measure of what is normal
RELATIVE_SIGMA_FLOOR = 0.05  # share of the mean measure
EVENT_WEIGHT = 0.4  # of a standardized event: other noise raises the largest of many slices most


@dataclass(frozen=True)
class Scale:
    """Mean and deviation of a domain's leave-one-out measures."""

    mu: float
    sigma: float

    @classmethod
    def fit(cls, measures: NDArray[np.floating], floor: float) -> Self:
        """Fit to `(n,)` finite measures. Sigma is at least `floor` and at least a share of mu."""
        mu = float(np.mean(measures, dtype=np.float64))
        sigma = float(np.std(measures, dtype=np.float64))
        return cls(mu, max(sigma, RELATIVE_SIGMA_FLOOR * mu, floor))

    def pool(self, own: Self | None, floor: float) -> Self:
        """Return the scale of a domain with few recordings: its own mean if it has one, this relative deviation."""
        if own is None:
            return self
        relative = self.sigma / max(self.mu, self.sigma)  # at most 1, also where identical clips have mean 0
        return replace(own, sigma=max(relative * own.mu, floor))

    def standardize(self, measures: NDArray[np.floating]) -> NDArray[np.float64]:
        """Return (measure - mu) / sigma."""
        return (measures.astype(np.float64) - self.mu) / self.sigma


@dataclass(frozen=True)
class Reference:
    """What the scores of clips of one length are compared with.

    Attributes:
        scales: mean and deviation of the leave-one-out measures per domain, one for each view.
        self_scores: leave-one-out scores per domain. The only recording of a domain is compared with the other
            domain alone.
        comparable: whether enrolled clips, or pieces of them, are as short as the scored clip.
    """

    scales: Mapping[Domain, tuple[Scale, ...]]
    self_scores: Mapping[Domain, SelfScores]
    comparable: bool

    @classmethod
    def fit(
        cls,
        values: Mapping[Domain, NDArray[np.float64]],
        clips: Mapping[Domain, "_Clips"],
        pooled: frozenset[Domain],
        *,
        comparable: bool = True,
    ) -> Self:
        """Fit to leave-one-out measures.

        Args:
            values: measures of pieces of one length by domain, `(views, clips)`; not finite where there is none.
            clips: measures of the enrolled clips by domain.
            pooled: domains that use the deviation of the largest domain.
            comparable: value of the attribute.
        """
        there = {domain: np.isfinite(own[0]) for domain, own in values.items()}
        own_scales = {
            domain: [
                Scale.fit(view[there[domain]], floor)
                for view, floor in zip(own, clips[domain].sigma_floors, strict=True)
            ]
            for domain, own in values.items()
            if there[domain].any()
        }
        largest = max(own_scales, key=lambda domain: len(np.unique(clips[domain].recordings)))
        scales, scores = {}, {}
        for domain, own in clips.items():
            of_domain = own_scales.get(domain)
            if domain in pooled or of_domain is None:
                floors = zip(own_scales[largest], own.sigma_floors, strict=True)
                of_domain = [
                    scale.pool(None if of_domain is None else of_domain[view], floor)
                    for view, (scale, floor) in enumerate(floors)
                ]
            scales[domain] = tuple(of_domain)
        for domain, own in clips.items():
            if there[domain].any():
                found = _fused(values[domain][:, there[domain]], scales[domain])
                scores[domain] = SelfScores.of(found, own.recordings[there[domain]])
            else:  # one recording: nothing of its own domain is left
                assert own.across is not None
                scores[domain] = SelfScores.of(_fused(own.across, scales[largest]), own.recordings)
        return cls(scales, scores, comparable)


@dataclass(frozen=True)
class ClipScores:
    """Scores of one clip.

    Attributes:
        domains: score of the clip against each domain.
        windows: score of each window, `(m,)`.
        view: view that decides.
        window: number of the window that decides.
        slice: number of the most anomalous slice of that window; None for the steady view.
        reference: scales and self-scores of the comparison.
    """

    domains: Mapping[Domain, float]
    windows: NDArray[np.float64]
    view: View
    window: int
    slice: int | None
    reference: Reference

    @property
    def score(self) -> float:
        """Anomaly score: the smallest one over the domains."""
        return min(self.domains.values())


@dataclass(frozen=True)
class Detector:
    """Scores clips against the banks of one machine.

    Attributes:
        backend: name of the backend of the steady view.
        whole: reference for clips as long as the enrolled ones.
        pooled: domains with too few recordings for a deviation of their own.
        mean_distance: mean cosine distance of a window to the nearest window of another recording, per enrolled
            domain. The other domain's mean stands in where a domain has one recording.
        events: event view; None if a window lacks slices or the backend uses none.
    """

    backend: str
    whole: Reference
    pooled: frozenset[Domain]
    mean_distance: Mapping[Domain, float]
    events: EventView | None
    _fitted: Backend
    _clips: Mapping[Domain, "_Clips"]

    @classmethod
    def fit(
        cls,
        banks: Mapping[Domain, Vectors],
        clips: Mapping[Domain, NDArray[np.int64]],
        recordings: Mapping[Domain, NDArray[np.int64]] | None = None,
        backend: str = DEFAULT_BACKEND,
        details: Mapping[Domain, Details] | None = None,
    ) -> Self:
        """Fit to a machine's enrolled windows.

        Args:
            banks: unit embeddings `(n, dim)` per enrolled domain, n >= 1.
            clips: clip number of each window `(n,)`, per enrolled domain.
            recordings: recording number of each window `(n,)`, per enrolled domain. None if each clip is a recording of
                its own.
            backend: name in `BACKENDS`.
            details: durations, slices, cuts and variants per enrolled domain; None without.

        Raises:
            OffkeyError: no domain has two recordings, so the difference between healthy recordings is unknown.
        """
        recordings = clips if recordings is None else recordings
        counts = {domain: len(np.unique(recordings[domain])) for domain in banks}
        _check(counts)
        kind = BACKENDS[backend]
        used = details if kind.uses_details else None
        steady = kind.fit(banks, recordings, used)
        views, events = [_View(steady.left_out, steady.cuts, kind.sigma_floor)], None
        if used is not None and all(own.slices for own in used.values()):
            events, left_out, cuts = EventView.fit(used, recordings, recording_folds(banks, recordings))
            views.append(_View(left_out, cuts, SIGMA_FLOOR))
        clips_of = {domain: _Clips.of(domain, clips[domain], recordings[domain], views, used) for domain in banks}
        pooled = _pooled(counts)
        near = steady.left_out if kind is Nearest else Nearest.fit(banks, recordings).left_out
        return cls(
            backend,
            Reference.fit({domain: own.curves.whole for domain, own in clips_of.items()}, clips_of, pooled),
            pooled,
            _mean_distances(near, counts),
            events,
            steady.backend,
            clips_of,
        )

    @property
    def neighbors(self) -> int:
        """Number of nearest windows of each domain that `score` needs."""
        return self._fitted.neighbors

    @property
    def nbytes(self) -> int:
        """Memory of the fitted views, in bytes."""
        return self._fitted.nbytes + (0 if self.events is None else self.events.nbytes)

    @property
    def uses_details(self) -> bool:
        """Whether the backend uses variants, cuts and slices."""
        return self._fitted.uses_details

    @property
    def self_scores(self) -> Mapping[Domain, SelfScores]:
        """Leave-one-out scores of the enrolled clips per enrolled domain."""
        return self.whole.self_scores

    @property
    def longest(self) -> float:
        """Duration of the longest enrolled clip, in seconds; 0 if durations are unknown."""
        return max(own.curves.longest for own in self._clips.values())

    def reference(self, seconds: float | None) -> Reference:
        """Return what clips of a duration (seconds, None if unknown) are compared with."""
        if seconds is None or seconds >= TOLERANCE * self.longest:
            return self.whole
        values, comparable = {}, True
        for domain, own in self._clips.items():
            values[domain] = own.curves.at(seconds)
            there = np.isfinite(values[domain][0])
            if len(np.unique(own.recordings[there])) < 2:
                comparable = comparable and len(np.unique(own.recordings)) < 2
                values[domain] = own.curves.whole
        return Reference.fit(values, self._clips, self.pooled, comparable=comparable)

    def score(
        self,
        windows: Vectors,
        near: Mapping[Domain, Near],
        slices: Sequence[Slices] | None = None,
        seconds: float | None = None,
        *,
        as_pieces: bool = False,
    ) -> ClipScores:
        """Score a clip.

        Args:
            windows: unit embeddings of its windows, `(m, dim)`.
            near: the `neighbors` nearest enrolled windows per domain, or all of them if the domain has fewer.
            slices: slices of each window; needed if there is an event view.
            seconds: duration of the enrolled pieces to compare with, None if unknown.
            as_pieces: whether each window is compared with an enrolled piece, as after `window_seconds`. Then the mean
                over the windows counts. Otherwise the whole clip is compared with enrolled clips.
        """
        reference = self.reference(seconds)
        found = self._measure(windows, near, slices, reference)
        domains = {
            domain: float(in_blocks(own.both, 1 if as_pieces else self._clips[domain].curves.windows))
            for domain, own in found.items()
        }
        nearest = min(domains, key=lambda domain: domains[domain])
        window = int(found[nearest].both.argmax())
        is_event = bool(found[nearest].event[window] > found[nearest].steady[window])
        return ClipScores(
            domains,
            np.min([own.both for own in found.values()], axis=0),
            View.EVENT if is_event else View.STEADY,
            window,
            int(found[nearest].slices[window].argmax()) if is_event else None,
            reference,
        )

    def window_scores(
        self, windows: Vectors, near: Mapping[Domain, Near], slices: Sequence[Slices] | None = None
    ) -> dict[Domain, NDArray[np.float64]]:
        """Score windows, each as a clip of its own. Returns scores `(m,)` against each domain.

        Arguments are those of `score`.
        """
        return {domain: own.both for domain, own in self._measure(windows, near, slices, self.whole).items()}

    def _measure(
        self, windows: Vectors, near: Mapping[Domain, Near], slices: Sequence[Slices] | None, reference: Reference
    ) -> dict[Domain, "_Measured"]:
        """Standardize the measures of windows by each domain."""
        steady = self._fitted.measure(windows, near)
        of_slices: list[Mapping[Domain, Measures]] = []
        if self.events is not None:
            assert slices is not None
            of_slices = [self.events.measure(one) for one in slices]
        found = {}
        for domain, scales in reference.scales.items():
            event, own = np.full(len(windows), -np.inf), [measures[domain] for measures in of_slices]
            if own:
                event = EVENT_WEIGHT * scales[1].standardize(np.array([one.max() for one in own]))
            found[domain] = _Measured(scales[0].standardize(steady[domain]), event, own)
        return found


class _Measured(NamedTuple):
    """Standardized measures of windows by one domain."""

    steady: NDArray[np.float64]  # (m,)
    event: NDArray[np.float64]  # (m,), -inf without an event view
    slices: list[Measures]  # distances of the slices of each window

    @property
    def both(self) -> NDArray[np.float64]:
        """Larger view of each window, `(m,)`."""
        return np.maximum(self.steady, self.event)


class _View(NamedTuple):
    """Leave-one-out measures of one view."""

    left_out: LeftOut
    cuts: Mapping[Domain, Measures]
    sigma_floor: float


@dataclass(frozen=True)
class _Clips:
    """Leave-one-out measures of the clips of one domain.

    Attributes:
        curves: measures by length, against the own domain; infinite if the domain has one recording.
        across: measures of the whole clips against the other domain, `(views, clips)`; None if there is none.
        recordings: recording number of each clip, `(clips,)`.
        sigma_floors: lowest deviation of each view.
    """

    curves: LengthCurves
    across: NDArray[np.float64] | None
    recordings: NDArray[np.int64]
    sigma_floors: tuple[float, ...]

    @classmethod
    def of(
        cls,
        domain: Domain,
        clips: NDArray[np.int64],
        recordings: NDArray[np.int64],
        views: Sequence[_View],
        details: Mapping[Domain, Details] | None,
    ) -> Self:
        curves = LengthCurves.of(
            clips,
            [view.left_out[domain][domain] for view in views],
            [view.cuts[domain] for view in views if domain in view.cuts],
            None if details is None else details[domain],
        )
        others = [bank for bank in views[0].left_out[domain] if bank is not domain]
        _, first = np.unique(clips, return_index=True)
        across = None
        if others:
            of_windows = [view.left_out[domain][others[0]] for view in views]
            across = LengthCurves.of(clips, of_windows, [], None).whole
        return cls(curves, across, recordings[first], tuple(view.sigma_floor for view in views))


def _check(counts: Mapping[Domain, int]) -> None:
    if max(counts.values(), default=0) < 2:
        raise OffkeyError(
            ErrorKind.BANK_TOO_SMALL,
            "One enrolled recording per domain is not enough to measure how much healthy recordings differ. "
            "Enroll at least 2 recordings of one domain; 20 or more make a useful threshold.",
        )


def _pooled(counts: Mapping[Domain, int]) -> frozenset[Domain]:
    """Return the domains that use the deviation of the largest domain."""
    largest = max(counts, key=lambda domain: counts[domain])
    return frozenset(d for d, count in counts.items() if count < min(MIN_SCALE_RECORDINGS, counts[largest]))


def _fused(values: NDArray[np.float64], scales: Sequence[Scale]) -> NDArray[np.float64]:
    """Standardize measures `(views, clips)`, and fuse the views as scores are. Returns `(clips,)`."""
    weights = (1.0, EVENT_WEIGHT)
    found: NDArray[np.float64] = np.max(
        [weight * scale.standardize(own) for weight, scale, own in zip(weights, scales, values, strict=False)], axis=0
    )
    return found


def _mean_distances(left_out: LeftOut, counts: Mapping[Domain, int]) -> dict[Domain, float]:
    """Average the distances of windows to the nearest one of another recording of their domain."""
    means = {d: float(np.mean(left_out[d][d], dtype=np.float64)) for d, count in counts.items() if count > 1}
    largest = max(means, key=lambda domain: counts[domain])
    return {domain: means.get(domain, means[largest]) for domain in counts}
