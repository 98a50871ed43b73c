"""Keeps anomalies out of the bank: what sounds anomalous is not enrolled as normal by mistake."""

from collections.abc import Callable
from dataclasses import dataclass

from service.bank import MemoryBank
from service.domain.detector import clip_score
from service.domain.distance import Vectors
from service.domain.machine import Domain
from service.store import MachineRecord
from service.usecases.context import Context
from service.usecases.threshold import USEFUL_RECORDINGS, threshold_of

# A bank at hand that holds this share of the clips will do: an exact one would be built anew for each request while
# a folder is enrolled, at a cost that grows with the square of the bank.
_SHARE_AT_HAND = 0.8
_NEARLY_THE_SAME = 0.1  # of the mean distance between recordings


@dataclass(frozen=True)
class Opinion:
    """What the bank says of a clip that is to be enrolled.

    Attributes:
        score: its anomaly score; None where the bank has too few recordings of the domain to be asked.
        held_back: why it is not enrolled, if it is not.
        repeats: which enrolled clip it nearly repeats, if it does.
    """

    score: float | None = None
    held_back: str | None = None
    repeats: str | None = None

    @property
    def note(self) -> str | None:
        """What a person should know."""
        return self.held_back or self.repeats


def guard(context: Context, record: MachineRecord, domain: Domain) -> Callable[[Vectors], Opinion]:
    """A judge of clips to be enrolled, by their embeddings `(windows, dim)`.

    It has none while the domain has fewer than 20 recordings: of so few nobody knows how much healthy ones differ.
    """
    clips = record.source_clips if domain is Domain.SOURCE else record.target_clips
    if clips < USEFUL_RECORDINGS:
        return lambda _: Opinion()
    bank = context.banks.at_hand(record.machine_key)
    if bank is None or bank.clips.get(domain, 0) < _SHARE_AT_HAND * clips:
        bank = context.bank(record)
    if bank.detector.self_scores[domain].recordings < USEFUL_RECORDINGS:
        return lambda _: Opinion()
    threshold = threshold_of(context, record, bank).decision_threshold
    return lambda vectors: _judge(bank, vectors, threshold)


def _judge(bank: MemoryBank, vectors: Vectors, threshold: float) -> Opinion:
    scores, neighbors = bank.score(vectors, 1)
    score = clip_score(scores)
    if score > threshold:
        return Opinion(
            score,
            held_back=f"It sounds anomalous: its score of {score:.3g} is above the decision threshold of "
            f"{threshold:.3g}. Listen to it; if it is healthy, enroll it with force=true.",
        )
    near = max((named[0] for named in neighbors), key=lambda neighbor: neighbor.distance)
    if near.distance < _NEARLY_THE_SAME * bank.detector.usual_distance[near.domain]:
        return Opinion(score, repeats=f"It nearly repeats clip {near.clip_id} ({near.name}) and adds little.")
    return Opinion(score)
