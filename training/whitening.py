"""Mean and covariance of general audio in noise, for the read-out's projection."""

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor

from training.config import ConfigError
from training.data.orders import WithoutReplacement
from training.data.windows import Window
from training.mixing import mix
from training.student import Student

Covariance = Literal["within-noise", "total", "none"]
_BATCH = 16


def fit_whitening(
    student: Student,
    sources: Sequence[Window],
    noises: Sequence[Window],
    load: Callable[[Sequence[Window]], Tensor],
    *,
    covariance: Covariance,
    epsilon: float,
    mixtures: int,
    seed: int,
    progress: Callable[[int], None] = lambda _: None,
) -> None:
    """Whiten a student's read-out, in closed form.

    A source is embedded clean and at 0 dB with each of two noises. The mean is over all three. `total` is the
    covariance of all three; `within-noise` that of the difference between the two mixtures, so that what noise
    moves counts little and what it leaves alone counts much.

    Args:
        student: its `readout.whitening` is set.
        sources: windows of general audio, of one length; drawn without replacement, then again.
        noises: likewise, two at least.
        load: samples `(batch, samples)` of windows.
        covariance: which of the two; `none` leaves the read-out as it is.
        epsilon: see `Whitening.fit`.
        mixtures: how many pairs of mixtures. Fewer than the read-out is wide, and it says little.
        seed: of the draws.
        progress: told the number of pairs done so far.

    Raises:
        ConfigError: fewer than two noises, or no pair at all.
    """
    if covariance == "none":
        return
    if len(noises) < 2 or mixtures < 1:
        raise ConfigError(
            f"Whitening takes a pair of mixtures and two noises at least, not {mixtures} (`readout.mixtures`) and "
            f"{len(noises)}. More noise, or `readout.covariance=none`."
        )
    source, noise = WithoutReplacement(len(sources), seed, 3), WithoutReplacement(len(noises), seed, 4)
    total, difference = _Moments(student.dim), _Moments(student.dim)
    for begin in range(0, mixtures, _BATCH):
        pairs = range(begin, min(begin + _BATCH, mixtures))
        clean = load([sources[source[pair]] for pair in pairs])
        first, second = (load([noises[noise[2 * pair + turn]] for pair in pairs]) for turn in (0, 1))
        with torch.inference_mode():
            pooled = [
                student.read(waveform).pooled.double().cpu()
                for waveform in (clean, mix(clean, first, 0.0), mix(clean, second, 0.0))
            ]
        for part in pooled:
            total.add(part)
        difference.add(pooled[1] - pooled[2])
        progress(pairs.stop)
    chosen = difference if covariance == "within-noise" else total
    student.readout.whitening.fit(total.mean, chosen.covariance, epsilon)


class _Moments:
    def __init__(self, dim: int) -> None:
        self.count = 0
        self.sum = torch.zeros(dim, dtype=torch.float64)
        self.products = torch.zeros(dim, dim, dtype=torch.float64)

    def add(self, rows: Tensor) -> None:  # (batch, dim)
        self.count += len(rows)
        self.sum += rows.sum(dim=0)
        self.products += rows.T @ rows

    @property
    def mean(self) -> Tensor:
        return self.sum / self.count

    @property
    def covariance(self) -> Tensor:
        return self.products / self.count - torch.outer(self.mean, self.mean)
