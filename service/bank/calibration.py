"""What is learned from a machine's rows: a second of work, where reading them takes a thirtieth of one."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from offkey.errors import ErrorKind, OffkeyError
from offkey.vocabulary import Domain
from service.bank.rows import BankRows
from service.domain.coreset import coreset
from service.domain.detector import Detector
from service.domain.envelope import Envelope
from service.domain.localization import Reference


@dataclass(frozen=True)
class Calibration:
    """What a bank knows beside its rows.

    Attributes:
        members: per enrolled domain `(n,)`, which rows scores compare with; all unless there is a coreset.
        detector: scores windows.
        envelopes: the conditions of each domain of which enough clips were measured.
        reference: tells what stands out in a window.
        clips_in_reference: how many of the compared clips it knows; those enrolled before there were spectrograms have
            none.
    """

    members: Mapping[Domain, NDArray[np.int64]]
    detector: Detector
    envelopes: Mapping[Domain, Envelope]
    reference: Reference
    clips_in_reference: int

    @classmethod
    def fit(cls, rows: BankRows, backend: str, coreset_windows: int) -> Self:
        """Learn from a machine's rows. Arguments and errors: `MemoryBank.build`."""
        if len(rows.vectors) == 0 or rows.embedding_space_id is None:
            raise OffkeyError(
                ErrorKind.EMPTY_BANK,
                "No clip is enrolled for this machine. POST normal clips to /enroll first.",
            )
        enrolled = rows.by_domain
        members = enrolled
        if coreset_windows:
            members = {
                d: at[coreset(rows.vectors[at], rows.clips[at], rows.recordings[at], coreset_windows)]
                for d, at in enrolled.items()
            }
        detector = Detector.fit(
            {d: rows.vectors[at] for d, at in members.items()},
            {d: rows.clips[at] for d, at in members.items()},
            {d: rows.recordings[at] for d, at in members.items()},
            backend,
        )
        envelopes = {d: found for d, at in enrolled.items() if (found := _envelope(rows, at)) is not None}
        return cls(members, detector, envelopes, *_reference(rows, members))


def _envelope(rows: BankRows, at: NDArray[np.int64]) -> Envelope | None:
    recordings = dict(zip(rows.clips[at].tolist(), rows.recordings[at].tolist(), strict=True))
    measured = [clip for clip in recordings if clip in rows.acoustics]
    return Envelope.of([rows.acoustics[clip] for clip in measured], [recordings[clip] for clip in measured])


def _reference(rows: BankRows, members: Mapping[Domain, NDArray[np.int64]]) -> tuple[Reference, int]:
    """Of the windows whose spectrogram is kept, and of how many clips they are."""
    kept = {domain: [row for row in at.tolist() if row in rows.spectrograms] for domain, at in members.items()}
    reference = Reference.fit(
        {domain: [rows.spectrograms[row] for row in found] for domain, found in kept.items()},
        {domain: rows.recordings[found] for domain, found in kept.items()},
    )
    return reference, len(np.unique(rows.clips[[row for found in kept.values() for row in found]]))
