"""Embeds variants and cuts of an enrolled clip: what a detector needs to know about irrelevant changes."""

import zlib

import numpy as np
from numpy.typing import NDArray

from service.audio.budget import UNLIMITED, Budget
from service.audio.decode import Samples
from service.domain.enrolled import Piece, PieceKind
from service.domain.nuisance import CUT_RECORDINGS, cuts, variant_count, variants
from service.encoder.encoder import Encoder

_SLICES = 5  # slices stored of a variant, of at most 20: they fill a covariance, and neighbors are alike


def embed_pieces(
    encoder: Encoder, samples: Samples, starts: NDArray[np.float64], enrolled: int, budget: Budget = UNLIMITED
) -> tuple[Piece, ...]:
    """Embed variants and cuts of one window of a clip. The same clip gives the same pieces.

    Args:
        encoder: encoder of the bank.
        samples: mono waveform of the clip at the encoder's sample rate, `(samples,)`.
        starts: starts of the clip's windows, in seconds, `(windows,)`.
        enrolled: number of clips of the domain that are enrolled before this one. Later clips have fewer pieces.
        budget: budget of the request.

    Raises:
        OffkeyError: the service is stopping.
    """
    rate = encoder.sample_rate
    seed = zlib.crc32(np.ascontiguousarray(samples).data)
    rng = np.random.default_rng(seed)
    start = round(float(rng.choice(starts)) * rate)
    window = samples[start : start + round(encoder.manifest.window.seconds * rate)]
    pieces = []
    for changed in variants(window, rate, variant_count(enrolled), seed):
        found = encoder.embed(changed, budget)
        some = None
        if found.slices:
            some = found.slices[0][np.sort(rng.permutation(len(found.slices[0]))[:_SLICES])]
        pieces.append(Piece(PieceKind.VARIANT, len(changed) / rate, found.vectors[0], some))
    if enrolled < CUT_RECORDINGS:
        for short in cuts(window, rate, seed):
            if len(short) >= round(encoder.manifest.window.min_seconds * rate):
                found = encoder.embed(short, budget)
                slices = found.slices[0] if found.slices else None
                pieces.append(Piece(PieceKind.CUT, len(short) / rate, found.vectors[0], slices))
    return tuple(pieces)
