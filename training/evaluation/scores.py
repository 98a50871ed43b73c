"""Computes one anomaly score per clip from embeddings. A score depends on the bank and on the clip alone."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from offkey.errors import OffkeyError
from offkey.vocabulary import Domain
from service.domain.backends import DEFAULT_BACKEND
from service.domain.detector import ClipScores, Detector
from service.domain.distance import Vectors, nearest_in, nearest_rows
from service.domain.enrolled import Details
from service.domain.threshold import Threshold, conformal_threshold
from training.data.catalog import DataError
from training.evaluation.embedders import Embedded

Scores = NDArray[np.float64]  # (clips,)
Scorer = Callable[[Embedded, Sequence[Domain], Embedded], Scores]


@dataclass(frozen=True)
class ServedBank:
    """A machine's train clips, enrolled as in the service, each in its domain."""

    detector: Detector
    vectors: Mapping[Domain, Vectors]

    @classmethod
    def enroll(cls, bank: Embedded, domains: Sequence[Domain], backend: str = DEFAULT_BACKEND) -> Self:
        """Enroll train clips, each in its domain. Raises `DataError` if there are too few."""
        of_window = np.array(domains)[bank.clips]
        members = {domain: np.flatnonzero(of_window == domain) for domain in Domain if (of_window == domain).any()}
        vectors = {domain: bank.vectors[at] for domain, at in members.items()}
        clips = {domain: bank.clips[at] for domain, at in members.items()}
        details = None
        if len(bank.ends):
            details = {
                domain: Details.of(
                    bank.ends[at],
                    [bank.slices[row] for row in at.tolist()] if bank.slices else [None] * len(at),
                    bank.pieces,
                    {clip: clip for clip in clips[domain].tolist()},
                )
                for domain, at in members.items()
            }
        try:
            detector = Detector.fit(vectors, clips, backend=backend, details=details)
        except OffkeyError as error:
            raise DataError(error.detail) from error
        return cls(detector, vectors)

    def judge(self, test: Embedded) -> list[ClipScores]:
        """Score each clip, as `POST /score` does."""
        count = max(self.detector.neighbors, 1)
        found = []
        for clip in test.split():
            near = {domain: nearest_rows(clip.vectors, rows, count) for domain, rows in self.vectors.items()}
            seconds = clip.window_seconds or (float(clip.ends[-1]) if len(clip.ends) else None)
            in_pieces = clip.window_seconds > 0
            found.append(self.detector.score(clip.vectors, near, clip.slices, seconds, as_pieces=in_pieces))
        return found

    def scores(self, test: Embedded) -> Scores:
        """Compute the score of each clip, as `POST /score` returns it."""
        return np.array([clip.score for clip in self.judge(test)])

    def threshold(self, false_alarm_rate: float) -> Threshold:
        """Compute the decision threshold for a requested rate in (0, 1) from the train clips."""
        return conformal_threshold(self.detector.self_scores, false_alarm_rate)

    def alarms(self, judged: Sequence[ClipScores], false_alarm_rate: float) -> NDArray[np.bool_]:
        """Return which clips raise an alarm at a requested rate, `(clips,)`."""
        return np.array(
            [
                clip.score > conformal_threshold(clip.reference.self_scores, false_alarm_rate).of_clip(clip.domains)
                for clip in judged
            ]
        )


def nearest(bank: Embedded, domains: Sequence[Domain], test: Embedded) -> Scores:
    """Compute the cosine distance to the nearest window of the whole bank; the largest one of a clip's windows.

    Args:
        bank: train clips.
        domains: domains of the train clips, which are not used.
        test: clips to score.
    """
    del domains
    found = [nearest_in(windows, bank.vectors).astype(np.float64) for windows in test.windows()]
    return np.array([distances.max() for distances in found])


def served(backend: str = DEFAULT_BACKEND) -> Scorer:
    """Create a scorer that computes the scores of `POST /score` with a backend, after enrolling the train clips.

    The scorer raises `DataError` if there are too few train clips.
    """
    return lambda bank, domains, test: ServedBank.enroll(bank, domains, backend).scores(test)


SCORERS = ("nearest", "domain-nearest", "served")


def scorers(backend: str = DEFAULT_BACKEND) -> dict[str, Scorer]:
    """Create each of `SCORERS`, `served` with a backend.

    `domain-nearest` is the scoring of the paper: the distance to the nearest window of each domain's bank, standardized
    by the bank's leave-one-out distances; the smaller one counts. The service's backend `nearest` computes the same.
    """
    return {"nearest": nearest, "domain-nearest": served("nearest"), "served": served(backend)}
