"""Say which seconds and which bands of a scored window stand out."""

import numpy as np
from numpy.typing import NDArray

from offkey.schemas import Localization, Region
from service.bank import Bank
from service.domain.localization import Located
from service.domain.spectrogram import Spectrogram
from service.encoder.encoder import Encoder


def note(encoder: Encoder, bank: Bank) -> str | None:
    """Why nothing can be localized, or what the comparison lacks; None: it is with all that is enrolled."""
    if encoder.band_edges_hz is None:
        return (
            f"The bundle {encoder.name} gives no log-mel spectrogram, or does not say at which "
            "frequencies its bands are. Export it again."
        )
    compared = sum(bank.compared.values())
    if not bank.reference.domains:
        return (
            f"A spectrogram is kept of {bank.clips_in_reference} of {compared} enrolled clips, and it takes those of "
            "two recordings of one domain. Of clips that an earlier version enrolled there is none: delete them and "
            "enroll them again."
        )
    if bank.clips_in_reference < compared:
        return (
            f"{compared - bank.clips_in_reference} of {compared} clips were enrolled by an earlier version, which kept "
            "no spectrogram of them: nothing was compared with these. Delete them and enroll them again."
        )
    return None


def localize(
    bank: Bank, edges_hz: NDArray[np.float64], window: Spectrogram, start_s: float, end_s: float
) -> Localization:
    """Of one window.

    Args:
        bank: whose reference has a domain.
        edges_hz: where its bands meet, `(bands + 1,)`.
        window: `(steps, bands)`.
        start_s: of the window in its clip.
        end_s: likewise.
    """
    found: Located = bank.reference.locate(window)
    times = np.linspace(start_s, end_s, len(window) + 1)
    return Localization(
        domain=found.domain,
        mean_deviation=round(found.usual, 2),
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
