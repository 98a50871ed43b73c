"""Bootstrap intervals over recordings, draws of the noise and training seeds.

Clips of one recording are not independent, so whole recordings are drawn, separately for each domain and condition.
Seeds of the noise are drawn, and training seeds for a group of methods. Of n items n - 1 are drawn with replacement:
drawing n would understate the variance by the factor (n - 1) / n, which matters for two recordings (McCarthy and
Snowden, 1985). A single item is not drawn. Machines, banks and recordings of noise are fixed, so the intervals do not
cover other ones.

Replicate 0 is the data without drawing, so that a figure and its interval come from the same code.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.evaluation.noise import generator
from training.evaluation.tree import JudgedMachine

LEVEL = 0.95


@dataclass(frozen=True)
class Interval:
    """A figure and its 95 % percentile interval."""

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, replicates: NDArray[np.float64]) -> "Interval":
        """Compute the interval of `(replicates,)`, of which the first is the figure itself."""
        low, high = np.quantile(replicates[1:], [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
        return cls(float(replicates[0]), float(low), float(high))


def clip_weights(machine: JudgedMachine, replicates: int) -> NDArray[np.float64]:
    """Draw the weight of each test clip, `(1 + replicates, test clips)`."""
    strata: dict[tuple[bool, str], dict[str, list[int]]] = {}
    for place, clip in enumerate(machine.test):
        recordings = strata.setdefault((clip.anomalous, clip.domain), {})
        recordings.setdefault(clip.recording, []).append(place)
    weights = np.ones((1 + replicates, len(machine.test)))
    for (anomalous, domain), recordings in sorted(strata.items()):
        rng = generator(0, "bootstrap", machine.name, domain, str(anomalous))
        counts = _multiplicities(len(recordings), replicates, rng)  # (replicates, recordings)
        for column, places in enumerate(recordings.values()):
            weights[1:, places] = counts[:, [column]]
    return weights


def seed_weights(seeds: int, replicates: int, *group: str) -> NDArray[np.float64]:
    """Draw the weight of each seed in a mean over seeds, `(1 + replicates, seeds)`; rows sum to 1.

    Args:
        seeds: number of seeds.
        replicates: number of draws.
        group: name of a group of methods, whose training seeds are drawn independently. Without it the seeds are those
            of the noise, which all methods share.
    """
    counts = _multiplicities(seeds, replicates, generator(0, "bootstrap", "seeds", *group))
    whole = np.concatenate([np.ones((1, seeds)), counts])
    weights: NDArray[np.float64] = whole / whole.sum(axis=1, keepdims=True)
    return weights


def recordings_of(machine: JudgedMachine) -> dict[str, int]:
    """Count test recordings by condition and domain; few recordings limit the intervals."""
    found: dict[str, set[str]] = {}
    for clip in machine.test:
        name = f"{'anomaly' if clip.anomalous else 'normal'} {clip.domain}"
        found.setdefault(name, set()).add(clip.recording)
    return {name: len(recordings) for name, recordings in sorted(found.items())}


def _multiplicities(count: int, replicates: int, rng: np.random.Generator) -> NDArray[np.float64]:
    if count == 1:
        return np.ones((replicates, 1))
    return rng.multinomial(count - 1, np.full(count, 1 / count), size=replicates).astype(np.float64)


def mean_over(parts: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    """Compute the mean `(replicates,)` of figures; undefined ones are left out."""
    defined = [part for part in parts if not np.isnan(part).all()]
    if not defined:
        return np.full_like(parts[0], np.nan)
    mean: NDArray[np.float64] = np.mean(defined, axis=0)
    return mean
