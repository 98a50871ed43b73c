"""The ratio of a mixture is exact, and masks touch what they should."""

import math
from collections import Counter
from typing import Literal

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from training.config import ConfigError, SpecAugmentConfig
from training.data.shard import Shard
from training.mixing import Snr, SpecAugment, generator_at, mix


def power_db(x: torch.Tensor) -> torch.Tensor:
    return 10 * torch.log10(x.double().square().mean(dim=1))


@given(snr=st.floats(-30, 30), gain=st.floats(1e-3, 1e3), seed=st.integers(0, 1000))
def test_the_ratio_is_exact_and_noise_has_unit_power(snr: float, gain: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    signal = gain * torch.randn(3, 4_000, generator=generator)
    noise = torch.randn(3, 4_000, generator=generator) / gain
    signal, noise = (part - part.mean(dim=1, keepdim=True) for part in (signal, noise))
    mixture = mix(signal, noise, snr)
    unit = noise / noise.square().mean(dim=1, keepdim=True).sqrt()
    part = mixture - unit  # what is left is the scaled signal
    assert torch.allclose(power_db(part) - power_db(unit), torch.full((3,), snr, dtype=torch.double), atol=0.01)
    assert torch.allclose(power_db(unit), torch.zeros(3, dtype=torch.double), atol=1e-3)
    correlation = torch.nn.functional.cosine_similarity(part, signal)
    assert bool((correlation > 0.999).all())


@given(offset=st.floats(-20, 20), other=st.floats(-20, 20))
def test_an_offset_of_a_recording_does_not_change_the_ratio(offset: float, other: float) -> None:
    generator = torch.Generator().manual_seed(0)
    signal, noise = torch.randn(2, 4_000, generator=generator), torch.randn(2, 4_000, generator=generator)
    expected = mix(signal, noise, -5.0)
    assert torch.allclose(mix(signal + offset, noise + other, -5.0), expected, atol=1e-3)


def test_silence_with_an_offset_is_no_sound() -> None:
    with pytest.raises(ValueError, match="Row 1 of the noise has no power"):
        mix(torch.randn(2, 100), torch.stack([torch.randn(100), torch.full((100,), 0.3)]), 0.0)


def test_each_mixture_may_have_its_own_ratio() -> None:
    signal, noise, snr = torch.randn(5, 100), torch.randn(5, 100), torch.tensor([-20.0, -3.0, 0.0, 7.5, 30.0])
    together = mix(signal, noise, snr)
    for row, one in enumerate(snr):
        assert torch.allclose(together[row], mix(signal[row : row + 1], noise[row : row + 1], float(one))[0])


@pytest.mark.parametrize("snr", [math.nan, math.inf, -math.inf])
def test_a_ratio_that_is_no_number_is_refused(snr: float) -> None:
    with pytest.raises(ValueError, match="finite number of dB"):
        mix(torch.randn(1, 10), torch.randn(1, 10), snr)
    with pytest.raises(ValueError, match="finite number of dB"):
        mix(torch.randn(2, 10), torch.randn(2, 10), torch.tensor([0.0, snr]))
    with pytest.raises(ConfigError, match=f"must hold finite numbers of dB, not {snr}"):
        Snr([0.0, snr])


@given(low=st.floats(-40, 40), width=st.floats(0, 40), seed=st.integers(0, 2**32), step=st.integers(0, 2**32))
def test_ratios_are_as_requested(low: float, width: float, seed: int, step: int) -> None:
    drawn = Snr([low, low + width], "uniform").draw(50, generator_at(seed, step))
    assert bool(((drawn >= low - 1e-4) & (drawn <= low + width + 1e-4)).all())
    fixed = Snr([low]).draw(3, generator_at(seed, step))
    assert torch.equal(fixed, torch.full((3,), low))


def test_ratios_fill_their_range_or_list() -> None:
    spread = Snr([-10, 10], "uniform").draw(10_000, generator_at(0, 0))
    assert abs(float(spread.mean())) < 0.3
    assert abs(float(spread.std()) - 20 / math.sqrt(12)) < 0.2
    counts = Counter(Snr([-5, 0, 5]).draw(3_000, generator_at(0, 0)).tolist())
    assert set(counts) == {-5.0, 0.0, 5.0}
    assert min(counts.values()) > 900


@pytest.mark.parametrize("values", [[], [1], [5, -5], [1, 2, 3]])
def test_a_range_that_is_none_is_refused(values: list[float]) -> None:
    with pytest.raises(ConfigError, match=r"mixing\.snr_db"):
        Snr(values, "uniform")


@given(world=st.integers(1, 4), rows=st.integers(1, 3), seed=st.integers(0, 2**32), step=st.integers(0, 2**32))
def test_what_the_processes_draw_is_together_what_one_would_draw(world: int, rows: int, seed: int, step: int) -> None:
    def drawn(own: int, logmel: torch.Tensor, shard: Shard) -> tuple[torch.Tensor, torch.Tensor]:
        generator = generator_at(seed, step)
        masked = SpecAugment(SpecAugmentConfig(time_width=5, freq_width=5))
        return Snr([-5, 5], "uniform").draw(own, generator, shard), masked(logmel, generator, shard)

    whole = torch.randn(world * rows, 12, 9, generator=torch.Generator().manual_seed(0))
    parts = [drawn(rows, whole[Shard(rank, world).rows(len(whole))], Shard(rank, world)) for rank in range(world)]
    one = drawn(len(whole), whole, Shard())
    assert torch.equal(torch.cat([part[0] for part in parts]), one[0])
    assert torch.equal(torch.cat([part[1] for part in parts]), one[1])


def test_numbers_hang_on_seed_and_step() -> None:
    first, again, other, later = (
        torch.rand(4, generator=generator_at(*place)) for place in ((1, 5), (1, 5), (2, 5), (1, 6))
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert not torch.equal(first, later)


@pytest.mark.parametrize("device", ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"])
@pytest.mark.parametrize("draw", ["choice", "uniform"])
def test_everything_is_drawn_and_mixed_on_the_device(device: str, draw: Literal["choice", "uniform"]) -> None:
    generator = generator_at(0, 0, device)
    signal, noise = torch.randn(2, 3, 1_000, device=device)
    mixture = mix(signal, noise, Snr([-5, 5], draw).draw(3, generator))
    masked = SpecAugment(SpecAugmentConfig())(torch.randn(3, 40, 30, device=device), generator)
    assert mixture.device.type == masked.device.type == device


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
