"""Machine sound and noise at a stated ratio, and masks on the mixture's spectrogram."""

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from training.config import ConfigError, SpecAugmentConfig
from training.data.shard import Shard

_ALONE = Shard()
_SILENCE = 1e-10  # share of a row's power without its mean below which only rounding is left


def generator_at(seed: int, step: int, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator whose numbers hang on the seed and the step alone, so that a resumed run draws the same."""
    state = int(np.random.SeedSequence([seed, step]).generate_state(1, np.uint64)[0])
    return torch.Generator(device).manual_seed(state >> 1)  # 63 bits: torch takes no more of a positive number


class Snr:
    """Signal-to-noise ratios of mixtures, in dB: one, one of several, or any between two."""

    def __init__(self, values: Sequence[float], draw: Literal["choice", "uniform"] = "choice") -> None:
        """`choice` takes one of `values`, each as likely; `uniform` anything between the two.

        Raises:
            ConfigError: no values, one that is NaN or infinite, or not two of them in rising order for `uniform`.
        """
        wrong = [value for value in values if not math.isfinite(value)]
        if wrong or not values:
            what = wrong[0] if wrong else "nothing"
            raise ConfigError(f"`mixing.snr_db` must hold finite numbers of dB, not {what}.")
        if draw == "uniform" and not (len(values) == 2 and values[0] <= values[1]):
            raise ConfigError(
                f"`mixing.snr_db` must be the lowest and the highest for a uniform draw, not {list(values)}."
            )
        self.values = tuple(map(float, values))
        self.uniform = draw == "uniform"

    def draw(self, rows: int, generator: torch.Generator, shard: Shard = _ALONE) -> Tensor:
        """Ratios `(rows,)` on the generator's device.

        Every process draws for all of them and keeps its own, so that together they have what one would have.
        """
        total, device = rows * shard.world, generator.device
        if self.uniform:
            low, high = self.values
            drawn = low + (high - low) * torch.rand(total, generator=generator, device=device)
        else:
            chosen = torch.randint(len(self.values), (total,), generator=generator, device=device)
            drawn = torch.tensor(self.values, device=device)[chosen]
        return drawn[shard.rows(total)]


def mix(signal: Tensor, noise: Tensor, snr_db: float | Tensor) -> Tensor:
    """Noise brought to unit power plus signal scaled to the SNR (arXiv 2510.25182, mixing).

    Args:
        signal: `(batch, samples)`.
        noise: `(batch, samples)`.
        snr_db: power of the signal over power of the noise in dB, over the whole window; one, or `(batch,)`.

    Raises:
        ValueError: an SNR is not finite, or a row of signal or noise is constant.

    The mean of each row is removed first: an offset is no sound, but its power would count in the ratio.
    """
    ratio = torch.as_tensor(snr_db, dtype=signal.dtype, device=signal.device)
    if not bool(ratio.isfinite().all()):
        raise ValueError(f"The SNR must be a finite number of dB, not {snr_db}.")
    gain = 10 ** (ratio / 20)  # () or (batch,)
    return to_unit_power(signal, "signal") * gain.reshape(-1, 1) + to_unit_power(noise, "noise")


def to_unit_power(x: Tensor, what: str) -> Tensor:
    """Remove the mean of each row of `(batch, samples)` and scale it to unit power.

    Raises:
        ValueError: a row is constant; `what` names the rows in the message.
    """
    centered = x - x.mean(dim=1, keepdim=True)
    power = centered.square().mean(dim=1, keepdim=True)  # (batch, 1)
    sounding = power > _SILENCE * x.square().mean(dim=1, keepdim=True)
    if not bool(sounding.all()):
        row = int(torch.nonzero(~sounding[:, 0])[0])
        raise ValueError(f"Row {row} of the {what} has no power, so no SNR can be set. Leave silent clips out.")
    return centered / torch.sqrt(power)


class SpecAugment:
    """Masks in time and frequency (Park et al., arXiv 1904.08779), for the student's mixture alone."""

    def __init__(self, config: SpecAugmentConfig) -> None:
        self.config = config

    def __call__(self, logmel: Tensor, generator: torch.Generator, shard: Shard = _ALONE) -> Tensor:
        """Set masked cells of `(batch, frames, mels)` to the clip's mean.

        Masks are drawn on the generator's device for the rows of all processes, of which `shard` keeps its own.
        """
        rows, frames, mels = logmel.shape
        fill = logmel.mean(dim=(1, 2), keepdim=True)  # (batch, 1, 1)
        for _ in range(self.config.time_masks):
            inside = _spans(rows, frames, self.config.time_width, generator, shard)  # (batch, frames)
            logmel = torch.where(inside[:, :, None].to(logmel.device), fill, logmel)
        for _ in range(self.config.freq_masks):
            inside = _spans(rows, mels, self.config.freq_width, generator, shard)  # (batch, mels)
            logmel = torch.where(inside[:, None, :].to(logmel.device), fill, logmel)
        return logmel


def _spans(rows: int, length: int, widest: int, generator: torch.Generator, shard: Shard) -> Tensor:
    total, device = rows * shard.world, generator.device
    width = torch.randint(0, min(widest, length) + 1, (total, 1), generator=generator, device=device)
    start = (torch.rand(total, 1, generator=generator, device=device) * (length - width + 1)).long()
    place = torch.arange(length, device=device)[None]
    return ((place >= start) & (place < start + width))[shard.rows(total)]
