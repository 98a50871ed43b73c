"""Localization: the seconds and frequency bands in which a window differs from a machine's enrolled recordings.

Each cell of a window's downsampled spectrogram is standardized by the mean and deviation of its band over the enrolled
windows of one domain. The largest deviations of healthy windows are those of the enrolled windows, each compared with
the other recordings alone, by the same leave-one-recording-out rule as for scores.

Localization shows a person where to listen. It does not change the decision, because the score is computed from the
embedding, which represents more than levels.
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
# Floors for bands of constant level, as in copies or in silence above a cut-off frequency.
_RELATIVE_FLOOR = 0.25  # share of the median deviation of the bands
_FLOOR = 0.01  # log-mel units: 0.2 dB with the shipped bundle, a few steps of the stored half precision
_EDGE = 0.5  # share of the strongest cell that the mean of a row or column needs to belong to its region


@dataclass(frozen=True)
class Region:
    """A block of cells that differs from the enrolled recordings.

    Attributes:
        steps: first step, and last step plus one.
        bands: first band, and last band plus one.
        deviation: difference of the strongest cell from the mean level of its band, in standard deviations.
        louder: whether that cell is louder than the mean level, not quieter.
        p_value: largest share of healthy windows, exchangeable with the enrolled ones, with a cell of this deviation.
    """

    steps: tuple[int, int]
    bands: tuple[int, int]
    deviation: float
    louder: bool
    p_value: float


@dataclass(frozen=True)
class Located:
    """Localization of one window.

    Attributes:
        domain: domain that the window was compared with, the one with the smaller difference.
        usual: median deviation of the strongest cell over healthy windows.
        regions: regions with at least the deviation `usual`, strongest first, at most `MOST_REGIONS`.
        profile: deviation of the strongest cell by step, `(steps,)`.
    """

    domain: Domain
    usual: float
    regions: tuple[Region, ...]
    profile: NDArray[np.float64]


@dataclass(frozen=True)
class _DomainReference:
    """Level statistics of a domain's recordings by band, and the largest deviations of its own windows."""

    mean: NDArray[np.float64]  # (bands,)
    sigma: NDArray[np.float64]  # (bands,)
    self_scores: SelfScores  # largest deviation of each window, with its recording left out

    @classmethod
    def fit(cls, windows: Sequence[Spectrogram], recordings: NDArray[np.int64]) -> Self:
        """Fit to windows of at least two recordings, with recording numbers `(windows,)`."""
        _, number = np.unique(recordings, return_inverse=True)
        shape = (int(number.max()) + 1, windows[0].shape[1])
        cells, total, squares = np.zeros((shape[0], 1)), np.zeros(shape), np.zeros(shape)
        for recording, window in zip(number, windows, strict=True):
            exact = window.astype(np.float64)
            cells[recording] += len(exact)
            total[recording] += exact.sum(axis=0)
            squares[recording] += np.square(exact).sum(axis=0)
        # (recordings, bands), over all recordings but one
        mean, sigma = _moments(cells.sum(0) - cells, total.sum(0) - total, squares.sum(0) - squares)
        largest = [
            float(np.abs((window - mean[recording]) / sigma[recording]).max())
            for recording, window in zip(number, windows, strict=True)
        ]
        all_mean, all_sigma = _moments(cells.sum(0), total.sum(0), squares.sum(0))
        return cls(all_mean, all_sigma, SelfScores.of(np.array(largest), recordings))

    def p_value(self, deviation: float) -> float:
        return (1.0 + self.self_scores.at_least(deviation)) / (self.self_scores.recordings + 1)


@dataclass(frozen=True)
class Reference:
    """Level statistics of a machine's enrolled recordings, which windows are compared with."""

    _by_domain: Mapping[Domain, _DomainReference]

    @classmethod
    def fit(
        cls, spectrograms: Mapping[Domain, Sequence[Spectrogram]], recordings: Mapping[Domain, NDArray[np.int64]]
    ) -> Self:
        """Fit to the spectrograms of enrolled windows and their recording numbers, per domain."""
        return cls(
            {
                domain: _DomainReference.fit(windows, recordings[domain])
                for domain, windows in spectrograms.items()
                if len(np.unique(recordings[domain])) > 1
            }
        )

    @property
    def domains(self) -> frozenset[Domain]:
        """Domains with stored spectrograms of two recordings or more; one recording has no deviation."""
        return frozenset(self._by_domain)

    def locate(self, window: Spectrogram) -> Located:
        """Localize the differences of a window. `domains` must not be empty."""
        deviations = {domain: (window - own.mean) / own.sigma for domain, own in self._by_domain.items()}
        domain = min(deviations, key=lambda one: float(np.square(deviations[one]).mean()))
        own, cells = self._by_domain[domain], deviations[domain]
        usual = own.self_scores.quantile(own.self_scores.recordings / 2)
        regions = tuple(
            Region(steps, bands, deviation, louder, own.p_value(deviation))
            for steps, bands, deviation, louder in _regions(cells, usual)
        )
        return Located(domain, usual, regions, np.abs(cells).max(axis=1))


def _moments(
    cells: NDArray[np.float64], total: NDArray[np.float64], squares: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Compute mean and floored deviation `(..., bands)` from count and sums."""
    mean = total / cells
    sigma = np.sqrt(np.maximum(squares / cells - np.square(mean), 0.0))
    floor = _RELATIVE_FLOOR * np.median(sigma, axis=-1, keepdims=True)
    return mean, np.maximum(sigma, np.maximum(floor, _FLOOR))


Block = tuple[tuple[int, int], tuple[int, int], float, bool]


def _regions(cells: NDArray[np.float64], usual: float) -> list[Block]:
    """Find the blocks around the strongest cells of `(steps, bands)`, without overlap of their cells."""
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
    """Grow a cell to a block, as long as the mean of an adjacent row or column reaches `edge`."""
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
