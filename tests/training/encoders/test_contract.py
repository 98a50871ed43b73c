"""What every registered encoder promises, whatever its architecture."""

from pathlib import Path

import pytest
import torch

from training.config import WindowConfig
from training.encoders import ENCODERS, Encoder
from training.graph import check_parity, write_graph
from training.student import Student

each_encoder = pytest.mark.parametrize("name", ENCODERS)


def sound(encoder: Encoder, batch: int, seconds: float = 0.6) -> torch.Tensor:
    samples = max(encoder.min_samples, round(seconds * encoder.front_end.sample_rate))
    return 0.1 * torch.randn(batch, samples, generator=torch.Generator().manual_seed(0))


@each_encoder
def test_it_states_its_authors_and_its_input(name: str) -> None:
    encoder = ENCODERS[name].tiny(seed=0)
    assert encoder.name == name
    assert encoder.license
    assert "http" in encoder.attribution
    assert 0 < encoder.front_end.bands <= encoder.front_end.mels
    assert encoder.front_end.sample_rate in (16_000, 32_000)
    assert len(set(encoder.layers)) == len(encoder.layers) > 1


@each_encoder
@torch.no_grad()
def test_a_tone_at_the_center_of_a_band_is_loudest_in_it(name: str) -> None:
    front_end = ENCODERS[name].tiny(seed=0).front_end
    centers = front_end.centers_hz
    assert len(centers) == front_end.bands
    time = torch.arange(front_end.sample_rate, dtype=torch.float64) / front_end.sample_rate
    for band in range(30, front_end.bands - 2, 9):  # lower bands are narrower than the resolution of the window
        tone = 0.1 * torch.sin(2 * torch.pi * centers[band] * time).float()
        middle = front_end(tone[None])[0, 20:60].mean(dim=0)
        assert int(middle.argmax()) == band, centers[band]


@each_encoder
@torch.no_grad()
def test_grids_have_the_shapes_it_names_down_to_the_shortest_waveform(name: str) -> None:
    encoder = ENCODERS[name].tiny(seed=0)
    for waveform in (sound(encoder, 2), sound(encoder, 1, seconds=0)):
        logmel = encoder.front_end(waveform)
        assert logmel.shape[::2] == (len(waveform), encoder.front_end.mels)
        for layer, grid in encoder(waveform, encoder.layers).items():
            assert grid.ndim == 4
            assert grid.shape[0] == len(waveform)
            assert grid.shape[2:] == encoder.layer_shape(layer)
            assert bool(torch.isfinite(grid).all())


@each_encoder
@torch.no_grad()
def test_a_clip_does_not_depend_on_its_batch_mates(name: str) -> None:
    encoder = ENCODERS[name].tiny(seed=0)
    waveform = sound(encoder, 3)
    last = encoder.layers[-1]
    together, alone = encoder(waveform, [last])[last], encoder(waveform[1:2], [last])[last]
    assert torch.allclose(together[1:2], alone, atol=1e-4 * float(alone.abs().max()))


@each_encoder
@torch.no_grad()
def test_a_seed_makes_the_same_encoder_and_it_is_in_evaluation_mode(name: str) -> None:
    first, second, other = (ENCODERS[name].tiny(seed) for seed in (3, 3, 4))
    waveform, layer = sound(first, 1), first.layers[-1]
    assert torch.equal(first(waveform, [layer])[layer], second(waveform, [layer])[layer])
    assert not torch.equal(first(waveform, [layer])[layer], other(waveform, [layer])[layer])


@each_encoder
def test_a_gradient_reaches_no_layer_behind_the_one_that_is_read(name: str) -> None:
    encoder = ENCODERS[name].tiny(seed=0)
    layer = encoder.layers[1]
    encoder(sound(encoder, 1), [layer])[layer].square().sum().backward()
    reached = sum(parameter.grad is not None for parameter in encoder.parameters())
    assert 0 < reached < len(list(encoder.parameters()))


@pytest.mark.parametrize("name", [name for name in ENCODERS if name != "sslam"])  # SSLAM has the graph of EAT
def test_a_student_of_it_is_exported(name: str, tmp_path: Path) -> None:
    encoder = ENCODERS[name].tiny(seed=0)
    student = Student(encoder, encoder.layers[:2], "mean").eval()
    write_graph(student, tmp_path / "model.onnx")
    shortest = encoder.min_samples / encoder.front_end.sample_rate
    window = WindowConfig(seconds=11.25, min_seconds=shortest)
    assert check_parity(student, tmp_path / "model.onnx", window) < 1e-4
