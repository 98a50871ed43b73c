"""EfficientAT against its published outputs, and its 16 kHz front end against the one at 32 kHz."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import soxr
import torch

from training.encoders import CheckpointError, EfficientAT, EfficientAT7k, EfficientAT16k
from training.encoders.efficientat import MelFrontEnd

TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def published(shared_dir: Path) -> EfficientAT:
    return EfficientAT.from_checkpoint(shared_dir / "encoders" / "mn04_as_mAP_432.pt")


@pytest.mark.shared_data
def test_every_stage_equals_the_published_code(published: EfficientAT, shared_dir: Path) -> None:
    golden = np.load(shared_dir / "golden" / "efficientat" / "mn04.npz")
    with torch.no_grad():
        logmel = published.front_end(torch.from_numpy(golden["waveform"])[None])
        grids = published.grids(logmel, published.layers)
        found = {name: grid[0].permute(2, 1, 0) for name, grid in grids.items()}
        found |= {"mel": logmel[0].T, "embedding": grids["block_16"].mean(dim=(1, 2))[0]}
        found["logits"] = published.logits(logmel)[0]
    assert found.keys() == set(golden.files) - {"waveform"}
    for name, value in found.items():
        expected = golden[name]
        assert value.shape == expected.shape, name
        assert np.abs(value.numpy() - expected).max() <= TOLERANCE * np.abs(expected).max(), name
        if name in published.layers:
            assert expected.shape[:2] == published.layer_shape(name)[::-1], name


def band_limited_noise(samples: int, rate: int, below: float) -> np.ndarray:
    """Noise `(samples,)` with nothing above `below` Hz."""
    spectrum = np.fft.rfft(np.random.default_rng(0).standard_normal(samples))
    spectrum[np.fft.rfftfreq(samples, 1 / rate) > below] = 0
    return (0.1 * np.fft.irfft(spectrum, samples)).astype(np.float32)


def test_16_khz_front_end_equals_the_published_one_on_the_upsampled_signal() -> None:
    # A resampler rolls off below 8 kHz, so the comparison ends where every resampler still passes all.
    low = band_limited_noise(48_000, 16_000, below=6_900)
    high = soxr.resample(low, 16_000, 32_000, quality="VHQ").astype(np.float32)
    with torch.no_grad():
        fast = MelFrontEnd(16_000)(torch.from_numpy(low)[None])[0]
        slow = MelFrontEnd(32_000)(torch.from_numpy(high)[None])[0]
    assert fast.shape == slow.shape == (300, 128)
    inner = slice(2, -2)  # at a clip's ends one mirrors the filtered signal, the other the signal
    assert float((fast - slow)[inner].abs().max()) < 0.01  # of a range of about 3
    assert float((fast - slow)[inner].abs().mean()) < 2e-4


def test_bands_above_8_khz_stay_at_the_log_floor_and_are_not_counted() -> None:
    front_end = MelFrontEnd(16_000)
    with torch.no_grad():
        logmel = front_end(torch.randn(2, 16_000))
    floor = (np.log(1e-5) + 4.5) / 5
    assert torch.allclose(logmel[..., front_end.bands :], torch.tensor(floor, dtype=torch.float32))
    assert bool((logmel[..., : front_end.bands].mean(dim=(0, 1)) > floor + 0.3).all())
    assert MelFrontEnd(32_000).bands == 128


@pytest.mark.parametrize("hertz", [300.0, 1_000.0, 5_000.0])
@pytest.mark.parametrize("rate", [16_000, 32_000])
def test_a_tone_is_loudest_in_the_band_around_it(hertz: float, rate: int) -> None:
    time = torch.arange(rate, dtype=torch.float64) / rate
    tone = 0.1 * torch.sin(2 * torch.pi * hertz * time).float()
    logmel = MelFrontEnd(rate)(tone[None])[0, 5:-5].mean(dim=0)  # (mels,)
    mel = 1127 * np.log1p(np.array([hertz, 15_000.0]) / 700)
    expected = mel[0] / (mel[1] / 129) - 1
    assert abs(int(logmel.argmax()) - expected) <= 1


def test_a_tone_above_8_khz_vanishes_on_the_way_to_the_16_khz_front_end() -> None:
    time = np.arange(96_000) / 48_000
    tone = (0.5 * np.sin(2 * np.pi * 11_000 * time)).astype(np.float32)
    resampled = soxr.resample(tone, 48_000, 16_000, quality="HQ").astype(np.float32)
    with torch.no_grad():
        logmel = MelFrontEnd(16_000)(torch.from_numpy(resampled)[None])[0, 5:-5]
    assert float((logmel - logmel.min()).max()) < 0.01


def recorded_at(rate: int, samples: np.ndarray) -> np.ndarray:
    """The samples at 16 kHz of a recording chain at another sample rate, which has nothing above 7.3 kHz."""
    there = soxr.resample(samples, 16_000, rate, quality="HQ")
    return soxr.resample(there, rate, 16_000, quality="HQ")[: len(samples)].astype(np.float32)


@pytest.mark.parametrize("rate", [22_050, 44_100, 48_000, 96_000])
def test_only_the_encoder_without_high_sound_is_indifferent_to_the_sample_rate(rate: int) -> None:
    own = (0.1 * np.random.default_rng(0).standard_normal(48_000)).astype(np.float32)
    waveforms = torch.from_numpy(np.stack([own, recorded_at(rate, own)]))
    differences = {}
    for kind in (EfficientAT16k, EfficientAT7k):
        encoder = kind.tiny(seed=0)
        with torch.no_grad():
            logmel = encoder.front_end(waveforms)[:, 5:-5]  # the two ends of a clip depend on the resampler
            grid = encoder.grids(logmel, ["block_06"])["block_06"].mean(dim=1)
        embedding = torch.nn.functional.normalize(grid.flatten(1), dim=1)
        differences[kind.name] = [float((part[0] - part[1]).abs().max()) for part in (logmel, embedding)]
    assert max(differences["efficientat-7k"]) < 1e-3
    assert min(differences["efficientat-16k"]) > 1e-2


def test_a_tone_above_7_2_khz_vanishes_and_no_band_is_left_for_it() -> None:
    time = torch.arange(16_000, dtype=torch.float64) / 16_000
    tone = 0.1 * torch.sin(2 * torch.pi * 7_600 * time).float()
    wide, narrow = EfficientAT16k.tiny(seed=0).front_end, EfficientAT7k.tiny(seed=0).front_end
    with torch.no_grad():
        all_of_it, rest = (front_end(tone[None])[0, 5:-5] for front_end in (wide, narrow))
    decibel = np.log(10) / 10 / 5  # of the normalized log-mel
    assert float(all_of_it.max() - rest.max()) > 60 * decibel, "what is left is the leakage of the window"
    assert float((rest - rest.min()).mean()) < 0.01
    assert narrow.bands < wide.bands
    assert narrow.centers_hz == wide.centers_hz[: narrow.bands]
    with torch.no_grad():
        logmel = narrow(torch.randn(1, 16_000))[..., narrow.bands - 1 :]
    assert bool((logmel[..., 0] > rest.min() + 0.3).all()), "the highest band has power"
    assert bool((logmel[..., 1:] == logmel[..., -1:]).all())


def test_the_three_encoders_have_the_same_weights() -> None:
    kinds = (EfficientAT, EfficientAT16k, EfficientAT7k)
    first, *others = (kind.tiny(seed=1).state_dict() for kind in kinds)
    for other in others:
        assert first.keys() == other.keys()
        assert all(torch.equal(first[key], other[key]) for key in first)
    assert {kind.fits for kind in kinds} == {tuple(kind.name for kind in kinds)}


@pytest.mark.parametrize("encoder", [EfficientAT, EfficientAT16k, EfficientAT7k])
def test_the_shortest_waveform_is_encoded_and_a_shorter_one_is_not(encoder: type[EfficientAT]) -> None:
    tiny = encoder.tiny(seed=0)
    with torch.no_grad():
        grids = tiny(torch.randn(1, tiny.min_samples), tiny.layers)
        for layer, grid in grids.items():
            assert grid.shape[2:] == tiny.layer_shape(layer)
            assert grid.shape[1] >= 1
        with pytest.raises(RuntimeError):
            tiny(torch.randn(1, tiny.min_samples - 2), tiny.layers)


def test_only_the_blocks_up_to_the_deepest_layer_run() -> None:
    tiny = EfficientAT.tiny(seed=0)
    tiny.features[5] = torch.nn.Identity()
    tiny.features[6].register_forward_hook(lambda *_: pytest.fail("block 6 ran"))
    grids = tiny.grids(torch.randn(1, 50, 128), ["block_04", "block_01"])
    assert set(grids) == {"block_04", "block_01"}
    with pytest.raises(ValueError, match="no layer 'block_17'"):
        tiny.grids(torch.randn(1, 50, 128), ["block_17"])


def test_any_width_is_recognized_from_its_checkpoint(tmp_path: Path) -> None:
    for width in (0.1, 0.5, 1.0):
        path = tmp_path / f"{width}.pt"
        torch.save(EfficientAT(width, classes=5).state_dict(), path)
        assert EfficientAT.from_checkpoint(path).layer_shape("block_15")[1] == max(8, int(160 * width + 4) // 8 * 8)


def test_checkpoints_that_do_not_fit_are_refused_by_name(tmp_path: Path) -> None:
    state = EfficientAT.tiny(seed=0).state_dict()
    missing = {key: value for key, value in state.items() if key != "features.3.block.1.1.running_var"}
    cases = {
        "missing: features.3.block.1.1.running_var": missing,
        "unexpected: extra.weight": state | {"extra.weight": torch.zeros(1)},
        r"features.0.0.weight \(3, 1, 3, 3\) instead of \(8, 1, 3, 3\)": state
        | {"features.0.0.weight": torch.zeros(3, 1, 3, 3)},
        "not an EfficientAT mn checkpoint": {"encoder.weight": torch.zeros(1)},
        "not a plain state dict": {"cfg": {"dim": 3}, "model": state},
    }
    for number, (message, content) in enumerate(cases.items()):
        path = tmp_path / f"{number}.pt"
        torch.save(content, path)
        with pytest.raises(CheckpointError, match=message):
            EfficientAT.from_checkpoint(path)


class _Bomb:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return print, ("code in a checkpoint ran",)


def test_a_pickle_with_code_is_not_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "bomb.pt"
    path.write_bytes(pickle.dumps(_Bomb(), protocol=2))
    with pytest.raises(CheckpointError, match="not loaded"):
        EfficientAT.from_checkpoint(path)
    assert capsys.readouterr().out == ""
    with pytest.raises(CheckpointError, match="no checkpoint at"):
        EfficientAT.from_checkpoint(tmp_path / "absent.pt")
