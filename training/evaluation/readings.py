"""From embeddings to one anomaly score per clip. A clip's score hangs on the bank and on itself, on no other clip."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from offkey.errors import OffkeyError
from offkey.vocabulary import Domain
from service.domain.backends import DEFAULT_BACKEND
from service.domain.detector import Detector, clip_score
from service.domain.distance import Vectors, nearest_in, nearest_rows
from service.domain.threshold import Threshold, conformal_threshold
from training.data.catalog import DataError
from training.evaluation.views import Embedded

Scores = NDArray[np.float64]  # (clips,)
Reading = Callable[[Embedded, Sequence[Domain], Embedded], Scores]


@dataclass(frozen=True)
class ServedBank:
    """A machine's train clips as the service holds them once they are enrolled, each under its domain."""

    detector: Detector
    vectors: Mapping[Domain, Vectors]

    @classmethod
    def enroll(cls, bank: Embedded, domains: Sequence[Domain], backend: str = DEFAULT_BACKEND) -> Self:
        """Enroll the train clips, each under its domain. Raises `DataError` if they are too few to be scored with."""
        of_window = np.array(domains)[bank.clips]
        members = {domain: of_window == domain for domain in Domain if (of_window == domain).any()}
        vectors = {domain: bank.vectors[at] for domain, at in members.items()}
        try:
            detector = Detector.fit(
                vectors, {domain: bank.clips[at] for domain, at in members.items()}, backend=backend
            )
        except OffkeyError as error:
            raise DataError(error.detail) from error
        return cls(detector, vectors)

    def window_scores(self, test: Embedded) -> list[Scores]:
        """Of each clip the scores of its windows."""
        count = max(self.detector.neighbors, 1)
        scores = []
        for windows in test.windows():
            near = {domain: nearest_rows(windows, rows, count) for domain, rows in self.vectors.items()}
            scores.append(self.detector.window_scores(windows, near))
        return scores

    def scores(self, test: Embedded) -> Scores:
        """What `POST /score` answers for each clip."""
        return np.array([clip_score(scores) for scores in self.window_scores(test)])

    def threshold(self, false_alarm_rate: float) -> Threshold:
        """The decision threshold at a requested rate in (0, 1), of the train clips alone."""
        return conformal_threshold(self.detector.self_scores, false_alarm_rate)


def nearest(bank: Embedded, domains: Sequence[Domain], test: Embedded) -> Scores:
    """Cosine distance to the nearest window of the whole bank; of a clip with several windows the largest.

    Args:
        bank: the train clips.
        domains: of the train clips, not looked at.
        test: the clips to be scored.
    """
    del domains
    found = [nearest_in(windows, bank.vectors).astype(np.float64) for windows in test.windows()]
    return np.array([clip_score(distances) for distances in found])


def served(backend: str = DEFAULT_BACKEND) -> Reading:
    """What `POST /score` answers with a backend once the train clips are enrolled, each under its domain.

    The reading raises `DataError` if the bank is too small to be scored with.
    """
    return lambda bank, domains, test: ServedBank.enroll(bank, domains, backend).scores(test)


READINGS = ("nearest", "domain-nearest", "served")


def readings(backend: str = DEFAULT_BACKEND) -> dict[str, Reading]:
    """Return each of `READINGS`, the served one with a backend.

    `domain-nearest` is the scoring of the paper: the distance to the nearest window of each domain's bank, standardized
    by the bank's leave-one-out distances, of which the smaller counts. It is what the service's backend `nearest` does.
    """
    return {"nearest": nearest, "domain-nearest": served("nearest"), "served": served(backend)}
