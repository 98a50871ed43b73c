"""Measures whether a student retains: the distance of its embeddings of held-out mixtures to the target.

The mixtures are made of clips that no training step draws. Nothing is masked: the student is measured as it is served.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass

import torch
from torch import Tensor
from torch.nn import functional

from training.data.orders import WithoutReplacement
from training.data.windows import Window
from training.mixing import mix
from training.objective import Objective, targets
from training.student import Vectors

SELECTING_SNR = 0.0  # dB, at which checkpoints are compared
SNRS_DB = (SELECTING_SNR, -5.0, 5.0)
_BATCH = 32

Embed = Callable[[Tensor], Vectors]  # from mixtures (batch, samples) to vectors, each (batch, ..., dim)


@dataclass(frozen=True)
class Retention:
    """Distance of embeddings of mixtures to the retain target at one ratio."""

    snr_db: float  # ratio of the mixtures
    distance: float  # squared distance as in the alignment loss, mean over mixtures
    cosine: float  # cosine to the target, the oracle's embedding
    frozen_distance: float  # squared distance of the frozen teacher's embeddings
    frozen_cosine: float  # cosine of the frozen teacher's embeddings

    @property
    def gain(self) -> float:
        """Relative reduction of the distance from the frozen teacher's; negative if the student is farther away."""
        return 1 - self.distance / self.frozen_distance


class HeldOut:
    """Fixed mixtures of held-out sounds, their targets, and the frozen teacher's distance."""

    def __init__(
        self,
        objective: Objective,
        teacher: Embed,
        load: Callable[[Sequence[Window]], Tensor],
        sources: Sequence[Window],
        noises: Sequence[Window],
        count: int,
    ) -> None:
        """Draw the mixtures and compute their targets.

        Args:
            objective: definition of target and distance.
            teacher: frozen network.
            load: function that returns the samples `(batch, samples)` of windows.
            sources: held-out windows; drawn without replacement, then again.
            noises: held-out windows, drawn in the same way.
            count: number of mixtures.
        """
        self._objective = objective
        self._load = load
        source, noise = WithoutReplacement(len(sources), 0, 5), WithoutReplacement(len(noises), 0, 6)
        pairs = [(sources[source[draw]], noises[noise[draw]]) for draw in range(count)]
        self._parts = [pairs[begin : begin + _BATCH] for begin in range(0, count, _BATCH)]
        self._teacher = [
            (self._vectors(teacher, [a for a, _ in part]), self._vectors(teacher, [b for _, b in part]))
            for part in self._parts
        ]
        self._frozen = {snr: self._at(snr, teacher) for snr in SNRS_DB}

    def measure(self, student: Embed) -> tuple[Retention, ...]:
        """Measure a student at each of `SNRS_DB`."""
        return tuple(Retention(snr, *self._at(snr, student), *self._frozen[snr]) for snr in SNRS_DB)

    def _vectors(self, network: Embed, windows: Sequence[Window]) -> Vectors:
        with torch.inference_mode():
            return network(self._load(windows))

    def _at(self, snr_db: float, network: Embed) -> tuple[float, float]:
        """Compute the mean distance and cosine at a ratio."""
        distances, cosines, rows = 0.0, 0.0, 0
        for part, (clean, noise) in zip(self._parts, self._teacher, strict=True):
            with torch.inference_mode():
                mixture = mix(self._load([a for a, _ in part]), self._load([b for _, b in part]), snr_db)
                share = self._objective.clean_share(torch.full((len(part),), snr_db, device=mixture.device))
                found, expected = network(mixture), targets(clean, noise, share)
                distances += len(part) * float(self._objective.distance(found, expected))
                alike = [
                    functional.cosine_similarity(a, b, dim=-1).mean() for a, b in zip(found, expected, strict=True)
                ]
                cosines += len(part) * float(torch.stack(alike).mean())
            rows += len(part)
        return distances / rows, cosines / rows


def as_rows(step: int, found: Sequence[Retention]) -> list[dict[str, float]]:
    """Convert figures to rows of `retention.csv`."""
    return [{"step": step, **asdict(one)} for one in found]


def from_rows(rows: Sequence[Mapping[str, float]]) -> list[tuple[int, Retention]]:
    """Convert rows of `retention.csv` to steps and figures."""
    return [(int(row["step"]), Retention(**{name: row[name] for name in row if name != "step"})) for row in rows]
