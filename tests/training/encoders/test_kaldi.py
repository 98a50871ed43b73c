"""The log-mel front end against a slow reference, golden vectors, and physics."""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from training.encoders.kaldi import EPSILON, FRAME, HOP, MELS, SAMPLE_RATE, KaldiFbank, KaldiFrontEnd

FLOOR = math.log(EPSILON)


def slow_fbank(waveform: np.ndarray, window: str) -> np.ndarray:
    """Kaldi's log-mel energies `(frames, MELS)`, one frame and one filter at a time in float64."""
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 399)
    shape = hann**0.85 if window == "povey" else hann

    def mel(frequency: float) -> float:
        return 1127 * math.log(1 + frequency / 700)

    edges = np.linspace(mel(20), mel(8000), 130)
    rows = []
    for start in range(0, len(waveform) - 399, 160):
        frame = waveform[start : start + 400].astype(np.float64)
        frame = frame - frame.mean()
        frame = frame - 0.97 * np.concatenate([frame[:1], frame[:-1]])
        power = np.abs(np.fft.rfft(frame * shape, 512)) ** 2
        row = []
        for left, center, right in zip(edges[:-2], edges[1:-1], edges[2:], strict=True):
            energy = 0.0
            for k in range(1, 256):
                m = mel(k * 16000 / 512)
                if left < m < right:
                    energy += power[k] * (
                        (m - left) / (center - left) if m <= center else (right - m) / (right - center)
                    )
            row.append(math.log(max(energy, float(np.finfo(np.float32).eps))))
        rows.append(row)
    return np.array(rows)


def tone(frequency: float, samples: int = SAMPLE_RATE) -> torch.Tensor:
    return (0.5 * torch.sin(2 * math.pi * frequency * torch.arange(samples, dtype=torch.float64) / SAMPLE_RATE)).float()


@settings(max_examples=12, deadline=None)
@given(
    samples=st.integers(FRAME, FRAME + 4 * HOP),
    seed=st.integers(0, 1000),
    gain=st.floats(1e-3, 3e4),
    offset=st.floats(-1, 1),
    window=st.sampled_from(["povey", "hanning"]),
)
def test_agrees_with_the_slow_reference(samples: int, seed: int, gain: float, offset: float, window: str) -> None:
    noise = torch.randn(samples, generator=torch.Generator().manual_seed(seed))
    waveform = gain * (0.1 * noise + offset)
    found = KaldiFbank(window)(waveform[None])[0].numpy()
    expected = slow_fbank(waveform.numpy(), window)
    assert found.shape == expected.shape == (1 + (samples - 400) // 160, MELS)
    assert np.abs(found - expected).max() < 3e-3  # of log energy, in the weakest band of any frame
    assert np.abs(found - expected).mean() < 3e-5


@pytest.mark.parametrize("frequency", [100.0, 440.0, 1000.0, 3150.0, 7500.0])
def test_a_tone_peaks_in_the_band_around_it(frequency: float) -> None:
    logmel = KaldiFbank("hanning")(tone(frequency)[None])[0].mean(dim=0)
    mel = 1127 * math.log(1 + frequency / 700)
    lowest, highest = (1127 * math.log(1 + f / 700) for f in (20, 8000))
    band = (mel - lowest) / (highest - lowest) * (MELS + 1) - 1  # the center of band i is i + 1 steps up
    # Low bands are narrower than a DFT bin of 31 Hz, so the peak can be a neighbor.
    assert abs(int(logmel.argmax()) - band) < (2.5 if frequency < 500 else 1.0)


def test_an_offset_has_no_effect_and_silence_is_the_floor() -> None:
    for value in (0.0, 0.5, -1.0):
        logmel = KaldiFbank("povey")(torch.full((1, 4000), value))
        assert torch.allclose(logmel, torch.full_like(logmel, FLOOR))


def test_a_louder_clip_is_higher_by_the_log_of_the_power_ratio() -> None:
    clip = 0.1 * torch.randn(1, 4000, generator=torch.Generator().manual_seed(0))
    fbank = KaldiFbank("povey")
    quiet, loud = fbank(clip), fbank(8 * clip)
    audible = quiet > FLOOR  # the lowest bands are so narrow that some have no DFT bin
    assert 0.9 < audible.float().mean() < 1.0
    assert torch.allclose(loud[audible], quiet[audible] + math.log(64), atol=1e-3)
    assert (loud[~audible] == quiet[~audible]).all()


def test_moving_by_a_hop_moves_by_a_frame() -> None:
    clip = torch.randn(1, 4000, generator=torch.Generator().manual_seed(0))
    fbank = KaldiFbank("povey")
    assert torch.allclose(fbank(clip[:, HOP:]), fbank(clip)[:, 1:], atol=1e-5)


def test_frames_lie_inside_the_waveform() -> None:
    clip = torch.randn(1, FRAME + HOP, generator=torch.Generator().manual_seed(0))
    fbank = KaldiFbank("povey")
    assert fbank(clip).shape == (1, 2, MELS)
    assert torch.allclose(fbank(clip[:, :-1]), fbank(clip)[:, :1], atol=1e-4)
    with pytest.raises(ValueError, match="399 samples is shorter than one frame of 400"):
        fbank(clip[:, : FRAME - 1])


def test_autocast_does_not_reach_it() -> None:
    clip = torch.randn(2, 4000, generator=torch.Generator().manual_seed(0))
    fbank = KaldiFbank("povey")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = fbank(clip)
    assert torch.equal(cast, fbank(clip))


def front_end(frames: int | None, multiple: int = 1) -> KaldiFrontEnd:
    return KaldiFrontEnd("hanning", scale=1.0, mean=-4.268, std=4.569, frames=frames, multiple=multiple)


def test_padding_comes_before_normalization() -> None:
    clip = torch.randn(2, 3000, generator=torch.Generator().manual_seed(0))  # 17 frames
    plain = front_end(None)(clip)
    assert plain.shape == (2, 17, MELS)
    for padded in (front_end(None, multiple=16)(clip), front_end(32)(clip)):
        assert padded.shape == (2, 32, MELS)
        assert torch.equal(padded[:, :17], plain)
        assert torch.allclose(padded[:, 17:], torch.tensor(4.268 / (2 * 4.569)))
    assert torch.equal(front_end(16)(clip), plain[:, :16])
    assert front_end(None, multiple=17)(clip).shape[1] == 17


@pytest.mark.shared_data
def test_golden_vectors(shared_dir: Path, relative: Callable[..., float]) -> None:
    beats = np.load(shared_dir / "golden/beats/beats_pretrain.npz")
    waveform = torch.from_numpy(beats["waveform"])[None]
    own = KaldiFrontEnd("povey", scale=2.0**15, mean=15.41663, std=6.55582)
    assert relative(own.fbank(waveform * 2.0**15)[0], beats["fbank_raw"]) < 3e-5
    assert relative(own(waveform)[0], beats["fbank_norm"]) < 3e-5

    eat = np.load(shared_dir / "golden/eat/eat_small.npz")
    for name, key in (("waveform", "fbank_raw"), ("short_waveform", "short_fbank_raw")):
        waveform = torch.from_numpy(eat[name])[None]
        found = KaldiFbank("hanning")(waveform)[0]
        assert relative(found, eat[key]) < 3e-5
        # The golden vectors are float32 too: both are as far from the truth.
        true = slow_fbank(waveform[0, : FRAME + 40 * HOP].numpy(), "hanning")
        assert relative(found[:41], true) < 3e-5
    waveform = torch.from_numpy(eat["waveform"])[None]
    assert relative(front_end(1024)(waveform)[0], eat["fbank_norm"]) < 3e-5
