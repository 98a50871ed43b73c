"""From embeddings to one anomaly score per clip. A clip's score hangs on the bank and on itself, on no other clip."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from service.domain.detector import Detector, clip_score
from service.domain.distance import nearest_in
from service.domain.errors import OffkeyError
from service.domain.machine import Domain
from training.data.catalog import DataError
from training.evaluation.views import Embedded

Scores = NDArray[np.float64]  # (clips,)
Reading = Callable[[Embedded, Sequence[Domain], Embedded], Scores]


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


def served(bank: Embedded, domains: Sequence[Domain], test: Embedded) -> Scores:
    """What `POST /score` answers once the train clips are enrolled, each under its domain.

    Args:
        bank: the train clips.
        domains: of the train clips.
        test: the clips to be scored.

    Raises:
        DataError: the bank is too small to be scored with.
    """
    of_window = np.array(domains)[bank.clips]
    members = {domain: of_window == domain for domain in Domain if (of_window == domain).any()}
    vectors = {domain: bank.vectors[at] for domain, at in members.items()}
    try:
        detector = Detector.fit(vectors, {domain: bank.clips[at] for domain, at in members.items()})
    except OffkeyError as error:
        raise DataError(error.detail) from error
    scores = []
    for windows in test.windows():
        distances = {domain: nearest_in(windows, rows) for domain, rows in vectors.items()}
        scores.append(clip_score(detector.window_scores(distances)))
    return np.array(scores)


READINGS: Mapping[str, Reading] = {"nearest": nearest, "served": served}
