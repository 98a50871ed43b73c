"""What a domain's detector is fitted to besides the embeddings of its windows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Self

import numpy as np
from numpy.typing import NDArray

from service.domain.distance import Vectors
from service.domain.slices import Slices


class PieceKind(StrEnum):
    """Relation of a piece to its clip."""

    VARIANT = "variant"  # the same sound with other noise, or through another recording chain
    CUT = "cut"  # a shorter piece


@dataclass(frozen=True)
class Piece:
    """A changed or shortened piece of an enrolled clip.

    Attributes:
        kind: relation to the clip.
        seconds: duration, in seconds.
        vector: unit embedding, `(dim,)`.
        slices: slices, `(steps, width)`: all of a cut, some of a variant. None if the bundle has none.
    """

    kind: PieceKind
    seconds: float
    vector: NDArray[np.float32]
    slices: Slices | None


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
        slices: some slices of each variant that has some.
        slice_recordings: recording number of each of these variants.
    """

    vectors: Vectors
    recordings: NDArray[np.int64]
    slices: tuple[Slices, ...]
    slice_recordings: NDArray[np.int64]


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

    @classmethod
    def of(
        cls,
        ends: NDArray[np.float64],
        slices: Sequence[Slices | None],
        pieces: Sequence[tuple[int, Piece]],
        recordings: Mapping[int, int],
    ) -> Self:
        """Collect the details of windows.

        Args:
            ends: time from the start of the clip to the end of each window, in seconds, `(n,)`.
            slices: slices of each window. If one has none, all are left out: the self-scores would lack its clip.
            pieces: pieces of these and of other clips, each with the number of its clip.
            recordings: recording number of each clip of the domain, by clip number.
        """
        known = [one for one in slices if one is not None]
        complete = len(known) == len(slices)
        own = [(clip, piece) for clip, piece in pieces if clip in recordings]
        return cls(
            ends,
            tuple(known) if complete else (),
            _cuts([one for one in own if one[1].kind is PieceKind.CUT], recordings, sliced=complete),
            _variants([one for one in own if one[1].kind is PieceKind.VARIANT], recordings, sliced=complete),
        )


def _cuts(pieces: Sequence[tuple[int, Piece]], recordings: Mapping[int, int], *, sliced: bool) -> Cuts | None:
    used = [(clip, piece) for clip, piece in pieces if piece.slices is not None or not sliced]
    if not used:
        return None
    return Cuts(
        np.stack([piece.vector for _, piece in used]),
        np.array([clip for clip, _ in used]),
        np.array([recordings[clip] for clip, _ in used]),
        np.array([piece.seconds for _, piece in used]),
        tuple(piece.slices for _, piece in used if piece.slices is not None),
    )


def _variants(pieces: Sequence[tuple[int, Piece]], recordings: Mapping[int, int], *, sliced: bool) -> Variants | None:
    if not pieces:
        return None
    with_slices = [(recordings[clip], piece.slices) for clip, piece in pieces if sliced and piece.slices is not None]
    return Variants(
        np.stack([piece.vector for _, piece in pieces]),
        np.array([recordings[clip] for clip, _ in pieces]),
        tuple(slices for _, slices in with_slices),
        np.array([recording for recording, _ in with_slices], dtype=np.int64),
    )
