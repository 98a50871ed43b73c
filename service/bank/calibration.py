"""Calibration of a bank: everything that is fitted to a machine's rows."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from offkey.errors import ErrorKind, OffkeyError
from offkey.vocabulary import Domain
from service.bank.rows import BankRows, CalibrationRows
from service.domain.backends import DEFAULT_BACKEND
from service.domain.coreset import coreset
from service.domain.detector import Detector
from service.domain.enrolled import Details
from service.domain.envelope import Envelope
from service.domain.localization import Reference


@dataclass(frozen=True)
class Calibration:
    """Fitted parts of a bank.

    Attributes:
        members: row numbers that scores compare with, `(n,)` per enrolled domain. All rows unless there is a coreset.
        detector: scorer of windows.
        envelopes: range of acoustics per domain. A domain with too few measured clips has none.
        reference: level statistics for localization.
        clips_in_reference: number of compared clips in `reference`. Clips enrolled by a version without spectrograms
            are missing.
    """

    members: Mapping[Domain, NDArray[np.int64]]
    detector: Detector
    envelopes: Mapping[Domain, Envelope]
    reference: Reference
    clips_in_reference: int

    @classmethod
    def fit(
        cls,
        rows: BankRows,
        calibration_rows: CalibrationRows,
        backend: str = DEFAULT_BACKEND,
        coreset_windows: int = 0,
    ) -> Self:
        """Fit to a machine's rows.

        Args:
            rows: enrolled windows.
            calibration_rows: acoustics, spectrograms, slices and pieces of the same clips.
            backend: name in `BACKENDS`.
            coreset_windows: largest number of windows of a domain to compare with, 0 for all.

        Raises:
            OffkeyError: there are no rows, or too few to measure how much healthy recordings differ.
        """
        if len(rows.vectors) == 0:
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
            _details(rows, members, calibration_rows),
        )
        fitted = {d: _envelope(rows, at, calibration_rows) for d, at in enrolled.items()}
        envelopes = {d: envelope for d, envelope in fitted.items() if envelope is not None}
        return cls(members, detector, envelopes, *_reference(rows, members, calibration_rows))


def _details(
    rows: BankRows, members: Mapping[Domain, NDArray[np.int64]], calibration_rows: CalibrationRows
) -> dict[Domain, Details]:
    """Collect what is known of the compared windows besides their embeddings."""
    details = {}
    for domain, at in members.items():
        recordings = dict(zip(rows.clips[at].tolist(), rows.recordings[at].tolist(), strict=True))
        slices = [calibration_rows.slices.get(row) for row in at.tolist()]
        details[domain] = Details.of(rows.ends[at], slices, calibration_rows.pieces, recordings)
    return details


def _envelope(rows: BankRows, at: NDArray[np.int64], calibration_rows: CalibrationRows) -> Envelope | None:
    acoustics = calibration_rows.acoustics
    recordings = dict(zip(rows.clips[at].tolist(), rows.recordings[at].tolist(), strict=True))
    measured = [clip for clip in recordings if clip in acoustics]
    return Envelope.of([acoustics[clip] for clip in measured], [recordings[clip] for clip in measured])


def _reference(
    rows: BankRows, members: Mapping[Domain, NDArray[np.int64]], calibration_rows: CalibrationRows
) -> tuple[Reference, int]:
    """Fit to the compared windows that have a spectrogram. Returns the reference and the number of their clips."""
    spectrograms = calibration_rows.spectrograms
    used = {domain: [row for row in at.tolist() if row in spectrograms] for domain, at in members.items()}
    reference = Reference.fit(
        {domain: [spectrograms[row] for row in own] for domain, own in used.items()},
        {domain: rows.recordings[own] for domain, own in used.items()},
    )
    return reference, len(np.unique(rows.clips[[row for own in used.values() for row in own]]))
