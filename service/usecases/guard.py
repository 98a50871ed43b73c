"""Keeps anomalies out of the bank: what sounds plainly anomalous is not enrolled as normal by mistake."""

import math
from collections.abc import Callable
from dataclasses import dataclass

from offkey.errors import ErrorKind, OffkeyError
from offkey.vocabulary import Domain
from service.bank import Bank
from service.domain.backends.base import TINY
from service.domain.detector import MIN_SCALE_RECORDINGS, clip_score
from service.domain.distance import Vectors
from service.domain.threshold import guard_bound
from service.store import BankChangedError, MachineRecord
from service.usecases.service import Context
from service.usecases.threshold import USEFUL_RECORDINGS, threshold_of

# A bank at hand that lacks the newest clips will do if it holds so many, or this share of all: building the newest for
# each request while a folder is enrolled would cost more than to embed its clips. What is enrolled unheard by the guard
# (forced, false alarms) is never missing, nor is what was deleted still there: such a change leaves no bank at hand.
_ENOUGH = 150  # clips
_SHARE = 0.5
_FEW = 40  # clips, of which the newest bank costs little
# Of the mean distance between recordings. On the synthetic machines and the real ones at hand, distinct recordings were
# never nearer than 0.77; a copy at another gain or in faint noise was below 0.1, one coded again as Ogg Vorbis at 0.3
# to 0.4, one cut by 0.1 s at 0.5 to 0.8.
_NEARLY_THE_SAME = 0.5


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


def bank_to_ask(context: Context, record: MachineRecord, domain: Domain) -> Bank | None:
    """What clips to be enrolled are compared with: a bank that holds all or enough of the domain.

    Returns:
        None: the domain has too few recordings.

    Raises:
        BankChangedError: the bank has moved to another embedding space than the record's.
        OffkeyError: it cannot be asked.
    """
    clips = record.source_clips if domain is Domain.SOURCE else record.target_clips
    if clips < MIN_SCALE_RECORDINGS:
        return None

    def enough(bank: Bank) -> bool:
        held = bank.clips.get(domain, 0)
        same = bank.embedding_space_id == record.embedding_space_id
        return same and clips > _FEW and held >= min(_ENOUGH, _SHARE * clips)

    try:
        bank = context.bank(record, enough)
    except OffkeyError as error:
        if error.kind is not ErrorKind.BANK_TOO_SMALL:  # many clips may be of one recording
            raise
        return None
    if bank.embedding_space_id != record.embedding_space_id:
        raise BankChangedError
    return bank


def guard(
    context: Context, record: MachineRecord, domain: Domain, bank: Bank | None, *, piece: bool
) -> Callable[[Vectors], Opinion]:
    """A judge of clips to be enrolled, by their embeddings `(windows, dim)`.

    It holds none back while the domain has fewer than 20 recordings: of so few nobody knows how much healthy ones
    differ. It has no opinion at all while they are too few for a scale of their own.

    Args:
        context: the adapters.
        record: the machine.
        domain: of the clips.
        bank: the one that `bank_to_ask` found.
        piece: they are pieces of a named recording, which may repeat each other.
    """
    if bank is None:
        return lambda _: Opinion()
    self_scores = bank.detector.self_scores.get(domain)
    if self_scores is None or self_scores.recordings < MIN_SCALE_RECORDINGS:
        return lambda _: Opinion()
    bound = math.inf
    if self_scores.recordings >= USEFUL_RECORDINGS:
        bound = guard_bound(self_scores, threshold_of(context, record, bank).decision_threshold)
    return lambda vectors: _judge(bank, vectors, bound, piece)


def _judge(bank: Bank, vectors: Vectors, bound: float, piece: bool) -> Opinion:
    scores, neighbors = bank.score(vectors, 1)
    score = clip_score(scores)
    near = max((named[0] for named in neighbors), key=lambda neighbor: neighbor.distance)
    repeats = near.distance <= max(_NEARLY_THE_SAME * bank.detector.mean_distance[near.domain], TINY)
    if score > bound and not repeats:
        return Opinion(
            score,
            held_back=f"It sounds anomalous: its score of {score:.3g} is above {bound:.3g}, far from all that is "
            "enrolled. Listen to it; if it is healthy, enroll it with force.",
        )
    if repeats and not piece:
        return Opinion(
            score,
            repeats=f"It nearly repeats clip {near.clip_id} ({near.name}). If both are of one recording, delete them "
            "and enroll them with its name as recording: copies that pass for independent ones make false alarms.",
        )
    return Opinion(score)
