"""Tells of clips that were recorded unlike what is enrolled."""

from collections.abc import Hashable, Mapping, Sequence

from offkey.schemas import AcousticsWarning
from offkey.vocabulary import Domain, Measure
from service.bank import Bank
from service.domain.acoustics import Acoustics
from service.domain.envelope import Difference, Envelope
from service.store import MachineRecord, NewClip
from service.usecases.service import Context

# Of a larger bank the newest clips tell how recordings are made now, at a cost that does not grow with it.
_NEWEST = 500

MACHINE_NOT_AUDIBLE = AcousticsWarning(
    kind=Measure.MACHINE,
    detail="The clip sounds more like the background that was posted to /noise than like any enrolled clip: the "
    "machine stands still, or the microphone does not hear it. The score says little.",
)


def warnings_of(differences: Sequence[Difference]) -> list[AcousticsWarning]:
    """What is answered of them."""
    return [AcousticsWarning(kind=one.measure, detail=one.detail) for one in differences]


def warnings_of_new(
    context: Context, record: MachineRecord, domain: Domain, bank: Bank | None, new: Mapping[str, NewClip]
) -> dict[str, list[AcousticsWarning]]:
    """Of each clip that is to be enrolled, by its key, how it is unlike the enrolled ones.

    Those are the ones of the bank that the guard asks; the store is asked where there is none.
    """
    own = {key: (clip.acoustics, clip.recording or key) for key, clip in new.items() if clip.acoustics is not None}
    if bank is not None and domain in bank.envelopes:
        envelope = bank.envelopes[domain]
        return {key: warnings_of(envelope.differences(of, new[key].seconds)) for key, (of, _) in own.items()}
    enrolled = context.store.shift.acoustics(record.machine_key, domain, _NEWEST) if own else []
    widths = {len(acoustics.bands_dbfs) for acoustics, _ in own.values()}
    # None are where the bank moves to a bundle of another sample rate at this moment.
    enrolled = [one for one in enrolled if len(one[0].bands_dbfs) in widths]
    known = _envelope(enrolled)
    warnings = {}
    for key, (acoustics, _) in own.items():
        # While too few are enrolled to tell, the clips of a request tell of each other.
        others = known or _envelope([*enrolled, *(own[other] for other in own if other != key)])
        if others is not None:
            warnings[key] = warnings_of(others.differences(acoustics, new[key].seconds))
    return warnings


def _envelope(clips: Sequence[tuple[Acoustics, Hashable]]) -> Envelope | None:
    """Of clips and their recordings, if they are enough."""
    return Envelope.of([acoustics for acoustics, _ in clips], [recording for _, recording in clips])
