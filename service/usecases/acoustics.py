"""Warn about clips whose acoustics differ from the enrolled clips."""

from collections.abc import Hashable, Mapping, Sequence

from offkey.schemas import AcousticsWarning
from offkey.vocabulary import Domain, Measure
from service.bank import Bank
from service.domain.acoustics import Acoustics
from service.domain.envelope import Difference, Envelope, recording_faults
from service.store import MachineRecord, NewClip
from service.usecases.service import Call

# The newest clips of a larger bank show how recordings are made now, at a cost that does not grow with the bank.
_NEWEST = 500

MACHINE_NOT_AUDIBLE = AcousticsWarning(
    kind=Measure.MACHINE,
    detail="The clip sounds more like the background that was posted to /noise than like any enrolled clip: the "
    "machine stands still, or the microphone does not pick it up. The score is not reliable.",
)


def warnings_of(differences: Sequence[Difference]) -> list[AcousticsWarning]:
    """Convert differences to warnings of an answer."""
    return [AcousticsWarning(kind=one.measure, detail=one.detail) for one in differences]


def warnings_of_new(
    call: Call, record: MachineRecord, domain: Domain, bank: Bank | None, new: Mapping[str, NewClip]
) -> dict[str, list[AcousticsWarning]]:
    """Return the warnings about each clip that is to be enrolled, by its key.

    It is compared with the clips of the guard's bank, or with the newest clips of the store if there is no bank.
    """
    own = {key: (clip.acoustics, clip.recording or key) for key, clip in new.items() if clip.acoustics is not None}
    faults = {key: warnings_of(recording_faults(acoustics)) for key, (acoustics, _) in own.items()}
    if bank is not None and domain in bank.envelopes:
        envelope = bank.envelopes[domain]
        return {
            key: faults[key] + warnings_of(envelope.differences(of, new[key].seconds)) for key, (of, _) in own.items()
        }
    enrolled = call.store.scores.acoustics(record.machine_key, domain, _NEWEST) if own else []
    widths = {len(acoustics.bands_dbfs) for acoustics, _ in own.values()}
    # Acoustics of another width come from a bundle of another sample rate, while the bank moves.
    enrolled = [one for one in enrolled if len(one[0].bands_dbfs) in widths]
    known = _envelope(enrolled)
    warnings = dict(faults)
    for key, (acoustics, _) in own.items():
        # While too few clips are enrolled, the clips of the request are compared with each other.
        others = known or _envelope([*enrolled, *(own[other] for other in own if other != key)])
        if others is not None:
            warnings[key] = faults[key] + warnings_of(others.differences(acoustics, new[key].seconds))
    return warnings


def _envelope(clips: Sequence[tuple[Acoustics, Hashable]]) -> Envelope | None:
    """Return the envelope of clips and their recordings. None if they are too few."""
    return Envelope.of([acoustics for acoustics, _ in clips], [recording for _, recording in clips])
