"""The ratio of a mixture is exact, and masks touch what they should."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from training.config import SpecAugmentConfig
from training.mixing import SpecAugment, mix


def power_db(x: torch.Tensor) -> torch.Tensor:
    return 10 * torch.log10(x.double().square().mean(dim=1))


@given(snr=st.floats(-30, 30), gain=st.floats(1e-3, 1e3), seed=st.integers(0, 1000))
def test_the_ratio_is_exact_and_noise_has_unit_power(snr: float, gain: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    signal = gain * torch.randn(3, 4_000, generator=generator)
    noise = torch.randn(3, 4_000, generator=generator) / gain
    mixture = mix(signal, noise, snr)
    unit = noise / noise.square().mean(dim=1, keepdim=True).sqrt()
    part = mixture - unit  # what is left is the scaled signal
    assert torch.allclose(power_db(part) - power_db(unit), torch.full((3,), snr, dtype=torch.double), atol=0.01)
    assert torch.allclose(power_db(unit), torch.zeros(3, dtype=torch.double), atol=1e-3)
    correlation = torch.nn.functional.cosine_similarity(part, signal)
    assert bool((correlation > 0.999).all())


@pytest.mark.parametrize("snr", [math.nan, math.inf, -math.inf])
def test_a_ratio_that_is_no_number_is_refused(snr: float) -> None:
    with pytest.raises(ValueError, match="finite number of dB"):
        mix(torch.randn(1, 10), torch.randn(1, 10), snr)


def test_silence_is_refused_by_row() -> None:
    signal = torch.randn(3, 100)
    signal[1] = 0
    with pytest.raises(ValueError, match="Row 1 of the signal has no power"):
        mix(signal, torch.randn(3, 100), 0.0)
    with pytest.raises(ValueError, match="Row 0 of the noise has no power"):
        mix(torch.randn(1, 100), torch.zeros(1, 100), 0.0)


def test_masks_are_whole_frames_and_bands_within_their_widths() -> None:
    logmel = torch.arange(40 * 30, dtype=torch.float32).reshape(1, 40, 30).repeat(64, 1, 1)
    generator = torch.Generator().manual_seed(0)
    config = SpecAugmentConfig(time_masks=1, time_width=7, freq_masks=1, freq_width=4)
    masked = SpecAugment(config)(logmel, generator)
    changed = masked != logmel  # (batch, frames, mels)
    frames, bands = changed.all(dim=2).sum(dim=1), changed.all(dim=1).sum(dim=1)
    assert int(frames.max()) == 7
    assert int(frames.min()) == 0
    assert int(bands.max()) == 4
    rows = changed.all(dim=2, keepdim=True) | changed.all(dim=1, keepdim=True)
    assert bool((rows == changed).all())
    assert torch.allclose(masked[changed], logmel.mean())


def test_masks_repeat_with_their_seed_and_none_changes_nothing() -> None:
    logmel = torch.randn(4, 50, 20)
    first, second = (SpecAugment(SpecAugmentConfig())(logmel, torch.Generator().manual_seed(5)) for _ in range(2))
    assert torch.equal(first, second)
    assert torch.equal(SpecAugment(SpecAugmentConfig(time_masks=0, freq_masks=0))(logmel, torch.Generator()), logmel)
