"""Which seconds and which bands of a window stand out against what a machine's recordings usually sound like.

Each cell of a window's spectrogram is held against the mean and deviation that its band has over the cells of one
domain's enrolled windows. How far the strongest cell of a healthy window stands out is known from the enrolled ones,
each held against the other recordings alone: the same leave-one-recording-out rule as for scores.

This tells where to listen. It does not decide: the score comes from the embedding, which hears more than levels.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from offkey.vocabulary import Domain
from service.domain.self_scores import SelfScores
from service.domain.spectrogram import Spectrogram

MOST_REGIONS = 3
# A band whose level never moved (copies, silence above a cut-off) must not make every hair of it a deviation.
_RELATIVE_FLOOR = 0.25  # of the median deviation of the bands
_FLOOR = 0.01  # log-mel units; 0.2 dB for the shipped bundle, a few steps of the half precision it is kept in
_EDGE = 0.5  # of a region's strongest cell: as long as the next row or column reaches it on average, it belongs


@dataclass(frozen=True)
class Region:
    """A block of cells that stands out.

    Attributes:
        steps: first step and the one behind the last.
        bands: first band and the one behind the last.
        standout: deviations by which its strongest cell is off the usual level.
        louder: whether that cell is louder than usual, or quieter.
        p_value: of healthy windows like those enrolled at most this share has a cell that stands out as much.
    """

    steps: tuple[int, int]
    bands: tuple[int, int]
    deviation: float
    louder: bool
    p_value: float


@dataclass(frozen=True)
class Located:
    """What stands out in one window.

    Attributes:
        domain: whose recordings it was held against, the one it is more like.
        usual: how far the strongest cell of every second healthy window stands out.
        regions: strongest first, at most `MOST_REGIONS`; none that stands out less than `usual`.
        profile: `(steps,)`, how far the strongest cell of each step stands out.
    """

    domain: Domain
    usual: float
    regions: tuple[Region, ...]
    profile: NDArray[np.float64]


@dataclass(frozen=True)
class _Usual:
    """How the recordings of a domain sound, band by band, and how far their own strongest cells stand out."""

    mean: NDArray[np.float64]  # (bands,)
    deviation: NDArray[np.float64]  # (bands,)
    standouts: SelfScores  # of windows

    @classmethod
    def fit(cls, windows: Sequence[Spectrogram], recordings: NDArray[np.int64]) -> Self:
        """Of two recordings at least; `recordings` `(windows,)`."""
        _, number = np.unique(recordings, return_inverse=True)
        shape = (int(number.max()) + 1, windows[0].shape[1])
        cells, total, squares = np.zeros((shape[0], 1)), np.zeros(shape), np.zeros(shape)
        for recording, window in zip(number, windows, strict=True):
            exact = window.astype(np.float64)
            cells[recording] += len(exact)
            total[recording] += exact.sum(axis=0)
            squares[recording] += np.square(exact).sum(axis=0)
        # (recordings, bands), of all recordings but one
        mean, deviation = _moments(cells.sum(0) - cells, total.sum(0) - total, squares.sum(0) - squares)
        standouts = [
            float(np.abs((window - mean[recording]) / deviation[recording]).max())
            for recording, window in zip(number, windows, strict=True)
        ]
        all_mean, all_deviation = _moments(cells.sum(0), total.sum(0), squares.sum(0))
        return cls(all_mean, all_deviation, SelfScores.of(np.array(standouts), recordings))

    def p_value(self, deviation: float) -> float:
        return (1.0 + self.standouts.at_least(deviation)) / (self.standouts.recordings + 1)


@dataclass(frozen=True)
class Reference:
    """What a bank knows of how its machine usually sounds over frequency.

    Attributes:
        domains: those of two recordings or more whose spectrograms are kept; one recording says nothing of how much
            they differ.
    """

    _usual: Mapping[Domain, _Usual]

    @classmethod
    def fit(
        cls, spectrograms: Mapping[Domain, Sequence[Spectrogram]], recordings: Mapping[Domain, NDArray[np.int64]]
    ) -> Self:
        """Fit to enrolled windows: per domain their spectrograms, and the recording of each."""
        return cls(
            {
                domain: _Usual.fit(windows, recordings[domain])
                for domain, windows in spectrograms.items()
                if len(np.unique(recordings[domain])) > 1
            }
        )

    @property
    def domains(self) -> frozenset[Domain]:
        return frozenset(self._usual)

    def locate(self, window: Spectrogram) -> Located:
        """Find what stands out in a window. There must be a domain to hold it against."""
        standing = {domain: (window - own.mean) / own.deviation for domain, own in self._usual.items()}
        domain = min(standing, key=lambda one: float(np.square(standing[one]).mean()))
        own, cells = self._usual[domain], standing[domain]
        usual = own.standouts.quantile(own.standouts.recordings / 2)
        regions = tuple(
            Region(steps, bands, deviation, louder, own.p_value(deviation))
            for steps, bands, deviation, louder in _regions(cells, usual)
        )
        return Located(domain, usual, regions, np.abs(cells).max(axis=1))


def _moments(
    cells: NDArray[np.float64], total: NDArray[np.float64], squares: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and floored deviation `(..., bands)` from count and sums."""
    mean = total / cells
    deviation = np.sqrt(np.maximum(squares / cells - np.square(mean), 0.0))
    floor = _RELATIVE_FLOOR * np.median(deviation, axis=-1, keepdims=True)
    return mean, np.maximum(deviation, np.maximum(floor, _FLOOR))


Block = tuple[tuple[int, int], tuple[int, int], float, bool]


def _regions(cells: NDArray[np.float64], usual: float) -> list[Block]:
    """The blocks around the strongest cells of `(steps, bands)`, none twice."""
    left = cells.copy()
    found: list[Block] = []
    while len(found) < MOST_REGIONS:
        step, band = (int(place) for place in np.unravel_index(np.abs(left).argmax(), left.shape))
        deviation = float(abs(left[step, band]))
        if deviation < usual or deviation == 0.0:
            break
        louder = bool(left[step, band] > 0)
        steps, bands = _grown(left if louder else -left, step, band, _EDGE * deviation)
        left[slice(*steps), slice(*bands)] = 0.0
        found.append((steps, bands, deviation, louder))
    return found


def _grown(cells: NDArray[np.float64], step: int, band: int, edge: float) -> tuple[tuple[int, int], tuple[int, int]]:
    """Widen a cell to a block for as long as the mean of a row or column beside it reaches `edge`."""
    first, last, low, high = step, step + 1, band, band + 1
    while True:
        if first > 0 and cells[first - 1, low:high].mean() >= edge:
            first -= 1
        elif last < cells.shape[0] and cells[last, low:high].mean() >= edge:
            last += 1
        elif low > 0 and cells[first:last, low - 1].mean() >= edge:
            low -= 1
        elif high < cells.shape[1] and cells[first:last, high].mean() >= edge:
            high += 1
        else:
            return (first, last), (low, high)
