"""Keep anomalies out of the bank: a clip that sounds plainly anomalous is not enrolled as normal by mistake."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from offkey.errors import ErrorKind, OffkeyError
from offkey.vocabulary import Domain
from service.bank import Bank
from service.domain.backends.base import TINY
from service.domain.detector import MIN_SCALE_RECORDINGS
from service.domain.lengths import TOLERANCE
from service.domain.threshold import guard_bound
from service.store import BankChangedError, MachineRecord, NewClip
from service.usecases.service import Call
from service.usecases.threshold import USEFUL_RECORDINGS, threshold_of

# A cached bank that lacks the newest clips is fresh enough if it holds so many clips, or this share of all. Building
# the newest bank for each request while a folder is enrolled would cost more than embedding its clips. Changes that the
# guard must not miss (forced clips, false alarms, deleted clips) raise the machine's guard_generation.
_ENOUGH_CLIPS = 150
_ENOUGH_SHARE = 0.5
_FEW_CLIPS = 40  # a bank of so few clips is built quickly
# Share of the mean distance between recordings. On the synthetic machines and the development machines, distinct
# recordings were never nearer than 0.77; a copy at another gain or in faint noise was below 0.1, a copy coded again as
# Ogg Vorbis at 0.3 to 0.4, a copy cut by 0.1 s at 0.5 to 0.8.
_NEARLY_THE_SAME = 0.5


@dataclass(frozen=True)
class Opinion:
    """Judgment of the guard on a clip.

    Attributes:
        score: anomaly score; None if the bank has too few recordings of the domain.
        held_back: reason why the clip is not enrolled; None if it is.
        repeats: enrolled clip that it nearly repeats; None if there is none.
    """

    score: float | None = None
    held_back: str | None = None
    repeats: str | None = None

    @property
    def note(self) -> str | None:
        """Text for the answer."""
        return self.held_back or self.repeats


def guard_bank(call: Call, record: MachineRecord, domain: Domain) -> Bank | None:
    """Return a bank that new clips are compared with: one that holds all or enough clips of the domain.

    Returns:
        None if the domain has too few recordings.

    Raises:
        BankChangedError: the bank has moved to another embedding space than the record's.
        OffkeyError: the bank cannot be loaded.
    """
    clips = record.source_clips if domain is Domain.SOURCE else record.target_clips
    if clips < MIN_SCALE_RECORDINGS:
        return None

    def fresh_enough(bank: Bank) -> bool:
        compared = bank.clips.get(domain, 0)
        usable = bank.generation >= record.guard_generation and bank.embedding_space_id == record.embedding_space_id
        return usable and clips > _FEW_CLIPS and compared >= min(_ENOUGH_CLIPS, _ENOUGH_SHARE * clips)

    try:
        bank = call.bank(record, fresh_enough)
    except OffkeyError as error:
        if error.kind is not ErrorKind.BANK_TOO_SMALL:  # many clips may be of one recording
            raise
        return None
    if bank.embedding_space_id != record.embedding_space_id:
        raise BankChangedError
    return bank


def judge_clips(
    call: Call,
    record: MachineRecord,
    domain: Domain,
    bank: Bank | None,
    new: Mapping[str, NewClip],
    *,
    is_piece: bool,
) -> dict[str, Opinion]:
    """Judge clips that are to be enrolled.

    No clip is held back while the domain has fewer than 20 recordings: so few do not show how much healthy recordings
    differ. There is no score at all while they are too few for a scale of their own.

    Args:
        call: the request.
        record: the machine.
        domain: domain of the clips.
        bank: bank that `guard_bank` returned.
        new: the clips, by sha256.
        is_piece: whether the clips are pieces of a named recording, which may repeat each other.
    """
    self_scores = None if bank is None else bank.detector.self_scores.get(domain)
    if bank is None or self_scores is None or self_scores.recordings < MIN_SCALE_RECORDINGS:
        return {sha256: Opinion() for sha256 in new}
    bound = math.inf
    if self_scores.recordings >= USEFUL_RECORDINGS:
        bound = guard_bound(self_scores, threshold_of(call, record, bank).decision_threshold)
    return {sha256: _judge(bank, clip, bound, is_piece) for sha256, clip in new.items()}


def _judge(bank: Bank, clip: NewClip, bound: float, is_piece: bool) -> Opinion:
    scores, neighbors = bank.score(clip.vectors, 1, clip.slices, clip.seconds)
    # A clip of another length than the enrolled ones has a score that does not describe its machine.
    longest = bank.detector.longest
    comparable = scores.reference.comparable and (not longest or TOLERANCE * clip.seconds <= longest)
    score = scores.score if comparable else None
    nearest = max((named[0] for named in neighbors), key=lambda neighbor: neighbor.distance)
    repeats = nearest.distance <= max(_NEARLY_THE_SAME * bank.detector.mean_distance[nearest.domain], TINY)
    if score is not None and score > bound and not repeats:
        return Opinion(
            score,
            held_back=f"It sounds anomalous: its score of {score:.3g} is above {bound:.3g}, far from all enrolled "
            "clips. Listen to it. If it is healthy, enroll it with force.",
        )
    if repeats and not is_piece:
        return Opinion(
            score,
            repeats=f"It nearly repeats clip {nearest.clip_id} ({nearest.name}). If both are of one recording, delete "
            "them and enroll them with its name as recording. Copies that count as independent recordings cause false "
            "alarms.",
        )
    return Opinion(score)
