"""Mixes machine sound and noise at a given signal-to-noise ratio, and masks the spectrogram of mixtures."""

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
    """Create a generator that depends on the seed and the step alone, so that a resumed run draws the same numbers."""
    state = int(np.random.SeedSequence([seed, step]).generate_state(1, np.uint64)[0])
    return torch.Generator(device).manual_seed(state >> 1)  # torch accepts 63 bits of a positive number


class Snr:
    """Draws signal-to-noise ratios of mixtures, in dB: a fixed one, one of several, or any between two."""

    def __init__(self, values: Sequence[float], draw: Literal["choice", "uniform"] = "choice") -> None:
        """Set the ratios to draw.

        Args:
            values: ratios in dB; the lowest and the highest one for `uniform`.
            draw: `choice` draws one of `values` with equal probability, `uniform` any value between the two.

        Raises:
            ConfigError: no values, a value that is not finite, or not two ascending values for `uniform`.
        """
        wrong = [value for value in values if not math.isfinite(value)]
        if wrong or not values:
            what = wrong[0] if wrong else "an empty list"
            raise ConfigError(f"`mixing.snr_db` must hold finite numbers of dB, not {what}.")
        if draw == "uniform" and not (len(values) == 2 and values[0] <= values[1]):
            raise ConfigError(
                f"`mixing.snr_db` must be the lowest and the highest for a uniform draw, not {list(values)}."
            )
        self.values = tuple(map(float, values))
        self.uniform = draw == "uniform"

    def draw(self, rows: int, generator: torch.Generator, shard: Shard = _ALONE) -> Tensor:
        """Draw ratios `(rows,)` on the generator's device.

        Every process draws the ratios of all processes and keeps its own, so that the number of processes does not
        change a mixture.
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
    """Add noise of unit power and signal scaled to the SNR (arXiv 2510.25182, mixing).

    Args:
        signal: clean sounds, `(batch, samples)`.
        noise: noises, `(batch, samples)`.
        snr_db: signal power over noise power of the whole window, in dB: one value, or `(batch,)`.

    Raises:
        ValueError: an SNR is not finite, or a row of signal or noise is constant.

    The mean of each row is removed first, because the power of an offset would count in the ratio.
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
        raise ValueError(f"Row {row} of the {what} has no power, so no SNR can be set. Remove silent clips.")
    return centered / torch.sqrt(power)


class SpecAugment:
    """Masks spectrograms of mixtures in time and frequency (Park et al., arXiv 1904.08779)."""

    def __init__(self, config: SpecAugmentConfig) -> None:
        self.config = config

    def __call__(self, logmel: Tensor, generator: torch.Generator, shard: Shard = _ALONE) -> Tensor:
        """Set masked cells of `(batch, frames, mels)` to the clip's mean.

        Masks are drawn on the generator's device for the rows of all processes; `shard` selects its own rows.
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
