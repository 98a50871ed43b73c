"""Report which seconds and bands of a scored window stand out."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from offkey.schemas import Localization, Region
from service.bank import Bank
from service.domain.localization import Located
from service.domain.spectrogram import Spectrogram
from service.encoder.encoder import Encoder


def localization_note(encoder: Encoder, bank: Bank) -> str | None:
    """Return why nothing can be localized, or what the comparison lacks. None if it uses all enrolled clips."""
    if encoder.band_edges_hz is None:
        return (
            f"The bundle {encoder.name} outputs no log-mel spectrogram, or its manifest lacks the frequencies of the "
            "bands. Export it again."
        )
    compared = sum(bank.compared.values())
    if not bank.reference.domains:
        return (
            f"Spectrograms are stored for {bank.clips_in_reference} of {compared} enrolled clips; localization needs "
            "those of two recordings of one domain. Clips enrolled by an earlier version have no spectrogram. Delete "
            "them and enroll them again."
        )
    if bank.clips_in_reference < compared:
        return (
            f"{compared - bank.clips_in_reference} of {compared} clips were enrolled by an earlier version, which "
            "stored no spectrograms. They are left out of the comparison: delete them and enroll them again."
        )
    return None


def localize_windows(
    bank: Bank,
    encoder: Encoder,
    spectrograms: Sequence[Spectrogram],
    spans: Sequence[tuple[float, float]],
    *,
    wanted: bool,
) -> list[Localization | None]:
    """Localize each window of a clip. Returns A window has None if localization is not wanted or impossible.

    Args:
        bank: bank of the machine.
        encoder: encoder of the bank.
        spectrograms: downsampled spectrogram `(steps, bands)` of each window.
        spans: start and end of each window, in seconds.
        wanted: whether the request includes localization.
    """
    edges_hz = encoder.band_edges_hz
    if not wanted or edges_hz is None or not bank.reference.domains:
        return [None] * len(spans)
    return [_localize(bank, edges_hz, one, *span) for one, span in zip(spectrograms, spans, strict=True)]


def _localize(
    bank: Bank, edges_hz: NDArray[np.float64], window: Spectrogram, start_s: float, end_s: float
) -> Localization:
    found: Located = bank.reference.locate(window)
    times = np.linspace(start_s, end_s, len(window) + 1)
    return Localization(
        domain=found.domain,
        median_deviation=round(found.usual, 2),
        regions=[
            Region(
                start_s=round(float(times[region.steps[0]]), 3),
                end_s=round(float(times[region.steps[1]]), 3),
                low_hz=round(float(edges_hz[region.bands[0]]), 1),
                high_hz=round(float(edges_hz[region.bands[1]]), 1),
                deviation=round(region.deviation, 2),
                change="louder" if region.louder else "quieter",
                p_value=region.p_value,
            )
            for region in found.regions
        ],
        step_s=round(float(times[1] - times[0]), 3),
        profile=[round(value, 2) for value in found.profile.tolist()],
    )
