"""Machine sound and noise at a stated ratio, and masks on the mixture's spectrogram."""

import torch
from torch import Tensor

from training.config import SpecAugmentConfig


def mix(signal: Tensor, noise: Tensor, snr_db: float) -> Tensor:
    """Noise brought to unit power plus signal scaled to the SNR (arXiv 2510.25182, mixing).

    Args:
        signal: `(batch, samples)`.
        noise: `(batch, samples)`.
        snr_db: power of the signal over power of the noise in dB, over the whole window.

    Raises:
        ValueError: the SNR is not finite, or a row of signal or noise has no power.
    """
    if not abs(snr_db) < float("inf"):
        raise ValueError(f"The SNR must be a finite number of dB, not {snr_db}.")
    scaled = _to_unit_power(signal, "signal") * 10 ** (snr_db / 20)
    return scaled + _to_unit_power(noise, "noise")


def _to_unit_power(x: Tensor, what: str) -> Tensor:
    power = x.square().mean(dim=1, keepdim=True)  # (batch, 1)
    if not bool((power > 0).all()):
        row = int(torch.nonzero(~(power[:, 0] > 0))[0])
        raise ValueError(f"Row {row} of the {what} has no power, so no SNR can be set. Leave silent clips out.")
    return x / torch.sqrt(power)


class SpecAugment:
    """Masks in time and frequency (Park et al., arXiv 1904.08779), for the student's mixture alone."""

    def __init__(self, config: SpecAugmentConfig) -> None:
        self.config = config

    def __call__(self, logmel: Tensor, generator: torch.Generator) -> Tensor:
        """Set masked cells of `(batch, frames, mels)` to the clip's mean."""
        fill = logmel.mean(dim=(1, 2), keepdim=True)  # (batch, 1, 1)
        for _ in range(self.config.time_masks):
            inside = _spans(logmel.shape[0], logmel.shape[1], self.config.time_width, generator)  # (batch, frames)
            logmel = torch.where(inside[:, :, None], fill, logmel)
        for _ in range(self.config.freq_masks):
            inside = _spans(logmel.shape[0], logmel.shape[2], self.config.freq_width, generator)  # (batch, mels)
            logmel = torch.where(inside[:, None, :], fill, logmel)
        return logmel


def _spans(batch: int, length: int, widest: int, generator: torch.Generator) -> Tensor:
    width = torch.randint(0, min(widest, length) + 1, (batch, 1), generator=generator)
    start = (torch.rand(batch, 1, generator=generator) * (length - width + 1)).long()
    place = torch.arange(length)[None]
    return (place >= start) & (place < start + width)
