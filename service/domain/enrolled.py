"""What a domain's detector is fitted to besides the embeddings of its windows."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from service.domain.distance import Vectors
from service.domain.slices import Slices


@dataclass(frozen=True)
class Cuts:
    """Shorter pieces of enrolled clips, which show how short healthy clips score.

    Attributes:
        vectors: unit embeddings, `(c, dim)`.
        clips: clip number of each piece, `(c,)`.
        recordings: recording number of each piece, `(c,)`.
        seconds: duration of each piece, `(c,)`.
        slices: slices of each piece; empty if the bundle has none.
    """

    vectors: Vectors
    clips: NDArray[np.int64]
    recordings: NDArray[np.int64]
    seconds: NDArray[np.float64]
    slices: tuple[Slices, ...]


@dataclass(frozen=True)
class Variants:
    """Enrolled windows with changes that are not the machine's: other noise, another recording chain.

    Attributes:
        vectors: unit embeddings, `(v, dim)`.
        recordings: recording number of each variant, `(v,)`.
        slices: some slices of each variant, `(v, steps, width)`; no steps if the bundle has none.
    """

    vectors: Vectors
    recordings: NDArray[np.int64]
    slices: NDArray[np.float32]


@dataclass(frozen=True)
class Details:
    """Details of a domain's enrolled windows.

    Attributes:
        ends: time from the start of the clip to the end of each window, in seconds, `(n,)`.
        slices: slices of each window; empty if a window has none.
        cuts: shorter pieces, None if there are none.
        variants: variants of the windows, None if there are none.
    """

    ends: NDArray[np.float64]
    slices: tuple[Slices, ...] = ()
    cuts: Cuts | None = None
    variants: Variants | None = None
