"""Self-scores by length: what healthy clips of the length of a scored clip measure.

A short clip differs more from the bank than a long one, because it averages over less. It is therefore compared with
pieces of the enrolled clips that are as short.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from service.domain.enrolled import Details

TOLERANCE = 0.9  # a clip of this share of a length counts as that long
CUT_SECONDS = (1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0)  # lengths that enrolled clips are also cut to


def window_seconds(seconds: float, longest: float, window: float) -> float:
    """Return the length of the windows that a clip is cut into, so that each is comparable with enrolled ones.

    The distance of an embedding from a bank depends on the length of the window. A short clip is therefore cut into
    windows of a length that enrolled clips were cut to, and a long one into windows as long as the enrolled clips.

    Args:
        seconds: duration of the clip.
        longest: duration of the longest enrolled clip, in seconds; 0 if unknown.
        window: length of the bundle's own windows, in seconds.

    Returns:
        Seconds; 0 for the bundle's own windows.
    """
    if not longest:
        return 0.0
    if seconds < min(TOLERANCE * longest, window):
        return max((cut for cut in CUT_SECONDS if cut <= seconds), default=0.0)
    if longest < window and TOLERANCE * seconds > longest:
        return longest
    return 0.0


@dataclass(frozen=True)
class LengthCurves:
    """Measures of the enrolled clips of one domain, cut to several lengths, with their recording left out.

    Attributes:
        lengths: lengths of the pieces of each clip, `(clips, k)` seconds, increasing; the last one is the whole clip.
            Clips with fewer pieces start with NaN.
        values: measures `(views, clips, k)`.
        windows: median number of windows of a clip.
    """

    lengths: NDArray[np.float64]
    values: NDArray[np.float64]
    windows: int

    @classmethod
    def of(
        cls,
        clips: NDArray[np.int64],
        windows: Sequence[NDArray[np.float64]],
        cuts: Sequence[NDArray[np.float64]],
        details: Details | None,
    ) -> Self:
        """Collect the pieces of each clip: its cuts, and its first windows, one, two, four and so on.

        Args:
            clips: clip number of each window, `(n,)`.
            windows: measures of the windows by view, each `(n,)`.
            cuts: measures of the cuts by view, each `(c,)`; empty without cuts.
            details: details of the windows, None if durations are unknown: then a clip is one piece of any length.
        """
        pieces: list[list[tuple[float, NDArray[np.float64]]]] = []
        counts = []
        own = None if details is None else details.cuts
        measured = np.array(windows)  # (views, n)
        of_cuts = np.array(cuts)  # (views, c)
        order = np.argsort(clips, kind="stable")
        for rows in np.split(order, np.flatnonzero(np.diff(clips[order])) + 1):
            counts.append(len(rows))
            found = []
            if own is not None and len(cuts):
                of_clip = np.flatnonzero(own.clips == clips[rows[0]])
                found = [(float(own.seconds[at]), of_cuts[:, at]) for at in of_clip[np.argsort(own.seconds[of_clip])]]
            if details is not None:
                for count in _doubling(len(rows)):
                    found.append((float(details.ends[rows[count - 1]]), measured[:, rows[:count]].max(axis=1)))
            whole = 0.0 if details is None else float(details.ends[rows].max())
            found.append((whole, measured[:, rows].max(axis=1)))
            pieces.append(found)
        most = max(map(len, pieces))
        lengths = np.full((len(pieces), most), np.nan)
        values = np.full((len(measured), len(pieces), most), np.nan)
        for clip, found in enumerate(pieces):
            for place, (seconds, value) in enumerate(found, start=most - len(found)):
                lengths[clip, place], values[:, clip, place] = seconds, value
        return cls(lengths, values, int(np.median(counts)))

    @property
    def whole(self) -> NDArray[np.float64]:
        """Measures of the whole clips, `(views, clips)`."""
        return self.values[:, :, -1]

    @property
    def longest(self) -> float:
        """Duration of the longest clip, in seconds; 0 if durations are unknown."""
        return float(self.lengths[:, -1].max())

    def at(self, seconds: float) -> NDArray[np.float64]:
        """Return the measures `(views, clips)` of pieces of a length.

        Between two lengths of pieces, the shorter one stands in, less the mean difference that interpolation over the
        logarithm of the length gives. Interpolating each clip by itself would average two pieces, which differ less
        than one does.

        NaN for clips of which no piece is as short. Clips that are shorter than `seconds` count as a whole.
        """
        found = self.values[:, :, -1].copy()
        length = max(seconds, 1e-3) / TOLERANCE
        between, longer = np.zeros(len(self.lengths), dtype=bool), np.zeros_like(found)
        for place in range(self.lengths.shape[1] - 2, -1, -1):
            low, high = self.lengths[:, place], self.lengths[:, place + 1]
            within = np.flatnonzero((length < high) & (low < high))
            if len(within):
                share = np.log(max(seconds, 1e-3) / low[within]) / np.log(high[within] / low[within])
                short, long = self.values[:, within, place], self.values[:, within, place + 1]
                found[:, within], longer[:, within] = short, np.clip(share, 0.0, 1.0) * (long - short)
                between[within] = True
        present = between & (length >= np.nanmin(self.lengths, axis=1))
        if present.any():
            found[:, present] += longer[:, present].mean(axis=1, keepdims=True)
        found[:, length < np.nanmin(self.lengths, axis=1)] = np.nan
        return found


def _doubling(windows: int) -> list[int]:
    """Return 1, 2, 4, ... below `windows`."""
    counts = []
    count = 1
    while count < windows:
        counts.append(count)
        count *= 2
    return counts


def in_blocks(values: NDArray[np.float64], windows: int) -> NDArray[np.float64]:
    """Reduce the scores of a clip's windows `(..., m)` to one score: the largest, or the mean of several largest.

    A clip with more windows than enrolled clips have is split into blocks of at most as many windows. Each block is
    comparable with an enrolled clip; the largest score of all blocks would not be.
    """
    count = values.shape[-1]
    if count <= windows:
        largest: NDArray[np.float64] = values.max(axis=-1)
        return largest
    blocks = np.array_split(values, -(-count // max(windows, 1)), axis=-1)
    mean: NDArray[np.float64] = np.mean([block.max(axis=-1) for block in blocks], axis=0)
    return mean
