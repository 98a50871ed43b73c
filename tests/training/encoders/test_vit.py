"""What must hold of every transformer over spectrogram patches."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from training.encoders.ast import AST
from training.encoders.base import Encoder
from training.encoders.beats import BEATs
from training.encoders.eat import EAT
from training.encoders.vit import PATCH, layer_names, read_out

ENCODERS: list[type[Any]] = [BEATs, EAT, AST]
STRIDE: dict[type[Any], int] = {BEATs: 16, EAT: 16, AST: 10}

each_encoder = pytest.mark.parametrize("kind", ENCODERS, ids=lambda kind: kind.name)


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def blocks(encoder: Encoder) -> list[nn.Module]:
    found = next(m for m in encoder.modules() if isinstance(m, nn.ModuleList))
    assert len(found) == len(encoder.layers) - 1
    return list(found)


@each_encoder
@settings(max_examples=8, deadline=None)
@given(batch=st.integers(1, 3), extra=st.integers(0, 20_000))
def test_grids_have_the_shape_they_tell(kind: type[Any], batch: int, extra: int) -> None:
    encoder = kind.tiny(0)
    samples = encoder.min_samples + extra
    frames = 1 + (samples - 400) // 160
    time = -(-frames // 16) if kind is EAT else (frames - 16) // STRIDE[kind] + 1
    with torch.no_grad():
        grids = encoder(0.1 * noise(batch, samples), encoder.layers)
    assert tuple(grids) == encoder.layers == ("layer_00", "layer_01", "layer_02", "layer_03")
    for layer, grid in grids.items():
        assert grid.shape == (batch, time, *encoder.layer_shape(layer))
        assert grid.isfinite().all()


@each_encoder
def test_a_waveform_too_short_is_refused(kind: type[Any]) -> None:
    encoder = kind.tiny(0)
    with pytest.raises(ValueError, match=r"shorter|fewer"):
        encoder(noise(1, encoder.min_samples - 1), ["layer_01"])
    with pytest.raises(ValueError, match="15 frames are fewer than the 16 of one patch"):
        encoder.grids(noise(1, 15, 128), ["layer_01"])


@each_encoder
def test_layers_after_the_deepest_requested_one_are_not_run(kind: type[Any]) -> None:
    encoder = kind.tiny(0)
    ran: list[int] = []
    for i, block in enumerate(blocks(encoder)):
        block.register_forward_hook(lambda *_, i=i: ran.append(i))
    waveform = noise(1, 4000)
    with torch.no_grad():
        everything = encoder(waveform, encoder.layers)
        for deepest, layers in (
            (0, ["layer_00"]),
            (2, ["layer_02"]),
            (2, ["layer_02", "layer_00"]),
            (3, ["layer_03"]),
        ):
            ran.clear()
            grids = encoder(waveform, layers)
            assert ran == list(range(deepest))
            assert list(grids) == layers
            assert all(torch.equal(grids[layer], everything[layer]) for layer in layers)


@pytest.mark.parametrize("layers", [[], ["layer_04"], ["layer_01", "six"]])
@each_encoder
def test_an_unknown_layer_is_refused(kind: type[Any], layers: Sequence[str]) -> None:
    with pytest.raises(ValueError, match=r"requested layers: .*; there are layer_00 to layer_03"):
        kind.tiny(0)(noise(1, 4000), layers)


@each_encoder
def test_a_grid_is_time_by_frequency(kind: type[Any]) -> None:
    """A change of one patch of the log-mel is felt most by the token of that patch."""
    encoder = kind.tiny(0)
    stride = STRIDE[kind]
    logmel = noise(1, 96, 128)
    changed = logmel.clone()
    time, freq = 3, 5
    rows = slice(time * stride, time * stride + PATCH)
    columns = slice(freq * stride, freq * stride + PATCH)
    changed[:, rows, columns] += 3 * noise(1, PATCH, PATCH, seed=1)
    with torch.no_grad():
        before, after = (encoder.grids(x, ["layer_00"])["layer_00"] for x in (logmel, changed))
    distance = (after - before).norm(dim=3)[0]  # (time, freq)
    assert divmod(int(distance.argmax()), distance.shape[1]) == (time, freq)


@each_encoder
def test_a_clip_has_one_embedding_alone_and_in_a_batch(kind: type[Any], relative: Callable[..., float]) -> None:
    encoder = kind.tiny(0)
    waveform = noise(3, 5000)
    with torch.no_grad():
        together = encoder(waveform, ["layer_03"])["layer_03"]
        alone = encoder(waveform[1:2], ["layer_03"])["layer_03"]
    assert relative(together[1:2], alone) < 1e-4


@each_encoder
def test_tiny_is_random_by_its_seed_alone(kind: type[Any]) -> None:
    state = torch.random.get_rng_state()
    first, again, other = (kind.tiny(seed).state_dict() for seed in (0, 0, 1))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


@each_encoder
def test_no_two_parameters_share_memory(kind: type[Any]) -> None:
    state = kind.tiny(0).state_dict()
    assert len({value.data_ptr() for value in state.values()}) == len(state)  # safetensors requires it


@each_encoder
def test_every_weight_on_the_way_gets_a_gradient(kind: type[Any]) -> None:
    encoder = kind.tiny(0)
    encoder(noise(1, 8000), ["layer_03"])["layer_03"].square().sum().backward()
    without = {name.split(".")[0] for name, p in encoder.named_parameters() if p.grad is None}
    assert without <= {"predictor", "head", "fc_norm", "mlp_head"}


@each_encoder
def test_bfloat16_is_near(kind: type[Any], relative: Callable[..., float]) -> None:
    encoder = kind.tiny(0)
    waveform = noise(2, 8000)
    with torch.no_grad():
        full = encoder(waveform, ["layer_03"])["layer_03"]
        with torch.autocast("cpu", dtype=torch.bfloat16):
            half = encoder(waveform, ["layer_03"])["layer_03"]
    assert relative(half.float(), full) < 0.05


def test_read_out_names() -> None:
    assert layer_names(12)[6] == "layer_06"
    steps = [lambda x, i=i: x + 10**i for i in range(3)]
    found = read_out(torch.zeros(1), steps, ["layer_03", "layer_01"])
    assert {layer: float(x) for layer, x in found.items()} == {"layer_03": 111.0, "layer_01": 1.0}
    assert np.isclose(float(read_out(torch.ones(1), steps, ["layer_00"])["layer_00"]), 1.0)
