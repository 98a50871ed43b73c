"""BEATs against golden vectors of the published code, and its own rules."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from training.encoders.base import CheckpointError
from training.encoders.beats import BEATs, BEATsConfig, PositionConv, bucket, fold_padding


def slow_bucket(distance: int, buckets: int, max_distance: int) -> int:
    half = buckets // 2
    exact = half // 2
    size = abs(distance)
    if size >= exact:
        share = math.log(size / exact) / math.log(max_distance / exact)
        size = min(half - 1, exact + int(share * (half - exact)))
    return size + (half if distance > 0 else 0)


def test_buckets_of_distances() -> None:
    distances = range(-1000, 1001)
    found = bucket(torch.tensor(distances), 320, 800).tolist()
    assert found == [slow_bucket(distance, 320, 800) for distance in distances]
    assert found[1000:1003] == [0, 161, 162]
    assert found[0] == 159
    assert found[-1] == 319


def test_the_position_convolution_normalizes_its_weight_per_tap() -> None:
    torch.manual_seed(0)
    layer = PositionConv(8, taps=4, groups=2)
    x = torch.randn(2, 10, 8)
    before = layer(x)
    with torch.no_grad():
        layer.weight_v.mul_(torch.tensor([1.0, 2.0, 3.0, 4.0]))
    assert torch.allclose(layer(x), before, atol=1e-5)
    with torch.no_grad():
        layer.weight_g.mul_(2)
    assert torch.allclose(layer(x) - layer.bias, 2 * (before - layer.bias), atol=1e-5)
    assert before.shape == x.shape


def test_base_has_the_published_parameters() -> None:
    with torch.device("meta"):
        state = BEATs(BEATsConfig(classes=527)).state_dict()
    assert state["encoder.pos_conv.0.weight_v"].shape == (768, 48, 128)
    assert state["encoder.layers.0.self_attn.relative_attention_bias.weight"].shape == (320, 12)
    assert state["encoder.layers.11.self_attn.grep_linear.weight"].shape == (8, 64)
    assert round(sum(value.numel() for value in state.values()) / 1e6) == 91  # 90 M in the paper, without a head


def test_padding_is_not_used() -> None:
    """A clip of whole patches gives the same alone and padded, where no patch is half padding."""
    encoder = BEATs.tiny(0)
    logmel = torch.randn(2, 320, 128, generator=torch.Generator().manual_seed(0))
    padding = torch.zeros(2, 320, dtype=torch.bool)
    padding[1, 160:] = True
    with torch.no_grad():
        padded = encoder.grids(logmel, encoder.layers, padding)
        alone = encoder.grids(logmel[1:, :160], encoder.layers)
        whole = encoder.grids(logmel[:1], encoder.layers)
        for layer in encoder.layers:
            assert torch.allclose(padded[layer][1:, :10], alone[layer], atol=1e-5)
            assert torch.allclose(padded[layer][:1], whole[layer], atol=1e-5)
        logits = encoder.logits(logmel, padding)
        assert torch.allclose(logits[1:], encoder.logits(logmel[1:, :160]), atol=1e-5)


def test_folding_a_mask() -> None:
    mask = torch.tensor([[0, 0, 0, 1, 1, 1, 1], [0, 0, 0, 0, 0, 0, 1]]).bool()
    assert fold_padding(mask, 3).tolist() == [[False, False, True], [False, False, False]]
    assert fold_padding(mask, 7).tolist() == mask.tolist()


def test_a_pretrained_encoder_has_no_head() -> None:
    encoder = BEATs(BEATsConfig(patch_dim=8, dim=16, hidden=16, heads=2, depth=1, conv_pos=4, conv_pos_groups=2))
    with pytest.raises(ValueError, match="no head"):
        encoder.logits(torch.zeros(1, 16, 128))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layer_norm_first": True}, "`layer_norm_first` is True, only False is supported"),
        ({"activation_fn": "glu"}, "`activation_fn` is 'glu'"),
        ({"encoder_layers": None}, "`encoder_layers` is None"),
        ({"encoder_layers": 4}, r"missing: encoder.layers.3.self_attn.relative_attention_bias"),
        ({"encoder_layers": 2}, "unexpected: encoder.layers.2"),
        ({"finetuned_model": False}, "unexpected: predictor.bias, predictor.weight"),
        ({"predictor_class": 7}, "predictor.weight .5, 32. instead of .7, 32."),
    ],
)
def test_other_settings_are_refused(
    change: dict[str, Any], message: str, published_form: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    form = published_form(BEATs.tiny(0))
    form["cfg"].update(change)
    torch.save(form, tmp_path / "beats.pt")
    with pytest.raises(CheckpointError, match=message):
        BEATs.from_checkpoint(tmp_path / "beats.pt")


def test_a_layer_with_another_position_bias_is_refused(
    published_form: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    form = published_form(BEATs.tiny(0))
    name = "encoder.layers.2.self_attn.relative_attention_bias.weight"
    form["model"][name] = form["model"][name] + 1
    torch.save(form, tmp_path / "beats.pt")
    with pytest.raises(CheckpointError, match=f"{name} differs"):
        BEATs.from_checkpoint(tmp_path / "beats.pt")


def test_a_tokenizer_is_named(published_form: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    form = published_form(BEATs.tiny(0))
    form["model"]["quantize.embedding.weight"] = torch.zeros(1)
    torch.save(form, tmp_path / "beats.pt")
    with pytest.raises(CheckpointError, match="it is a checkpoint of BEATs tokenizer"):
        BEATs.from_checkpoint(tmp_path / "beats.pt")


def tokens(grid: Tensor) -> Tensor:
    return grid.flatten(1, 2)


@pytest.mark.shared_data
@pytest.mark.parametrize("name", ["beats_pretrain", "beats_finetuned"])
@torch.no_grad()
def test_golden_vectors(name: str, shared_dir: Path, relative: Callable[..., float]) -> None:
    golden = np.load(shared_dir / "golden/beats" / f"{name}.npz")
    encoder = BEATs.from_checkpoint(shared_dir / "golden/beats" / f"{name}.pt")
    seen: dict[str, Tensor] = {}
    encoder.patch_embedding.register_forward_hook(lambda *a: seen.update(patch_embed=a[2].flatten(2).transpose(1, 2)))
    encoder.post_extract_proj.register_forward_hook(lambda *a: seen.update(encoder_in=a[2]))
    inputs = {
        5e-6: torch.from_numpy(golden["fbank_norm"])[None],
        2e-5: encoder.front_end(torch.from_numpy(golden["waveform"])[None]),
    }
    for tolerance, logmel in inputs.items():
        grids = encoder.grids(logmel, encoder.layers)
        for layer in encoder.layers:
            assert relative(tokens(grids[layer])[0], golden[layer]) < tolerance
        for key, value in seen.items():
            assert relative(value[0], golden[key]) < tolerance
        assert relative(tokens(grids[encoder.layers[-1]])[0], golden["encoder_out"]) < tolerance
        if "logits" in golden:
            logits = encoder.logits(logmel)[0]
            assert relative(logits, golden["logits"]) < tolerance
            assert relative(logits.sigmoid(), golden["probs"]) < tolerance
        else:
            assert relative(tokens(grids[encoder.layers[-1]])[0], golden["features"]) < tolerance


@pytest.mark.shared_data
@pytest.mark.parametrize("name", ["beats_pretrain", "beats_finetuned"])
@torch.no_grad()
def test_golden_vectors_of_a_padded_batch(name: str, shared_dir: Path, relative: Callable[..., float]) -> None:
    golden = np.load(shared_dir / "golden/beats" / f"{name}.npz")
    encoder = BEATs.from_checkpoint(shared_dir / "golden/beats" / f"{name}.pt")
    logmel = encoder.front_end(torch.from_numpy(golden["pad_waveform"]))
    padding = fold_padding(torch.from_numpy(golden["pad_mask_in"]), logmel.shape[1])
    expected_mask = golden["pad_mask_out"]
    assert expected_mask.any()
    assert np.array_equal(fold_padding(padding, expected_mask.shape[1]).numpy(), expected_mask)
    if name == "beats_finetuned":
        assert relative(encoder.logits(logmel, padding).sigmoid(), golden["pad_out"]) < 2e-5
    else:
        last = encoder.layers[-1]
        found = tokens(encoder.grids(logmel, [last], padding)[last])
        assert relative(found, golden["pad_out"]) < 2e-5
