"""Mean and covariance of general background audio, for the read-out's projection."""

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from training.data.windows import Window
from training.mixing import mix
from training.student import Student

Covariance = Literal["within-noise", "total", "none"]
_BATCH = 16


def fit_whitening(
    student: Student,
    windows: Sequence[Window],
    load: Callable[[Sequence[Window]], Tensor],
    *,
    covariance: Covariance,
    epsilon: float,
    seed: int,
    progress: Callable[[int], None] = lambda _: None,
) -> None:
    """Whiten a student's read-out, in closed form.

    Every window is embedded clean and twice at 0 dB with other windows as noise. The mean is over all three.
    `total` is the covariance of all three; `within-noise` that of the difference between the two mixtures,
    so that what noise moves counts little and what it leaves alone counts much.

    Args:
        student: its `readout.whitening` is set.
        windows: general audio, at least three windows of one length.
        load: samples `(batch, samples)` of windows.
        covariance: which of the two; `none` leaves the read-out as it is.
        epsilon: see `Whitening.fit`.
        seed: of the choice of noises.
        progress: told the number of windows done so far.
    """
    if covariance == "none":
        return
    if len(windows) < 3:
        raise ValueError(f"Whitening needs at least 3 windows of general audio, not {len(windows)}.")
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(windows))  # neighbors in it are each other's noises
    total, difference = _Moments(student.dim), _Moments(student.dim)
    for begin in range(0, len(order), _BATCH):
        places = np.arange(begin, min(begin + _BATCH, len(order)))
        clean, first, second = (
            load([windows[order[place]] for place in (places + shift) % len(order)]) for shift in (0, 1, 2)
        )
        with torch.inference_mode():
            pooled = [
                student.read(waveform).pooled.double().cpu()
                for waveform in (clean, mix(clean, first, 0.0), mix(clean, second, 0.0))
            ]
        for part in pooled:
            total.add(part)
        difference.add(pooled[1] - pooled[2])
        progress(begin + len(places))
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
