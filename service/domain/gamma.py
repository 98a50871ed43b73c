"""Quantile of a gamma distribution fitted to scores: the threshold of the DCASE Task 2 baselines.

The baselines fit shape, location and scale to the scores of the normal training clips and take the 0.9 quantile. The
likelihood of that fit has no maximum: it grows without bound as the location approaches the lowest score, so the
result of an optimizer depends on its starting point. Here the three parameters match the mean, deviation and skewness
of the scores. That fit is unique, follows the scores when they are shifted or scaled, and allows negative scores.
"""

import math
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

# At 2 the distribution is exponential; beyond, its density is infinite at its location, and one outlier among the
# scores would pull the quantile below their mean.
MAX_SKEWNESS = 2.0
# Below it the expansion by Cornish and Fisher is within 1e-5 deviations of the gamma quantile.
_NEARLY_NORMAL = 0.1
_BISECTIONS = 60


def gamma_quantile(scores: NDArray[np.float64], quantile: float) -> float:
    """Compute the quantile of the gamma distribution with the mean, deviation and skewness of `scores`.

    Args:
        scores: scores `(n,)`, n >= 1, finite, of any sign. Their skewness is limited to 0 (a normal distribution) to
            `MAX_SKEWNESS`.
        quantile: quantile in (0, 1).
    """
    mean, deviation = float(np.mean(scores)), float(np.std(scores))
    if deviation <= 1e-12 * max(1.0, abs(mean)):  # identical but for rounding
        return mean
    skewness = float(np.mean(((scores - mean) / deviation) ** 3))
    return mean + deviation * _standard_quantile(min(max(skewness, 0.0), MAX_SKEWNESS), quantile)


def _standard_quantile(skewness: float, quantile: float) -> float:
    """Compute the quantile of the gamma distribution with mean 0 and deviation 1."""
    if skewness < _NEARLY_NORMAL:
        z = NormalDist().inv_cdf(quantile)
        kurtosis = 1.5 * skewness**2  # in excess of the normal one
        return (
            z
            + skewness * (z**2 - 1) / 6
            + kurtosis * (z**3 - 3 * z) / 24
            - skewness**2 * (2 * z**3 - 5 * z) / 36
        )  # fmt: skip
    shape = 4.0 / skewness**2  # 1 to 400
    low, high = 0.0, shape + 50.0 * math.sqrt(shape)
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        low, high = (low, middle) if _cumulative(shape, middle) >= quantile else (middle, high)
    return (high - shape) / math.sqrt(shape)


def _cumulative(shape: float, x: float) -> float:
    """Compute the regularized lower incomplete gamma function by its power series of positive terms (DLMF 8.7.1)."""
    terms = np.cumprod(x / (shape + np.arange(1.0, x + 12.0 * math.sqrt(x + shape) + 60.0)))
    return math.exp(shape * math.log(x) - x - math.lgamma(shape + 1.0)) * (1.0 + float(terms.sum()))
