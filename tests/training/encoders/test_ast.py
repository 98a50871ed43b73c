"""AST against `transformers`, and its own rules."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from training.encoders.ast import AST, FREQ, TIME, ASTConfig

GOLDEN = Path(__file__).with_name("ast_transformers.npz")


def published_positions(table: Tensor, time: int) -> Tensor:
    """What published AST makes of `(FREQ, TIME, dim)` when it is built for `time` patches."""
    image = table.permute(2, 0, 1)[None]  # (1, dim, FREQ, TIME)
    if time < TIME:
        start = 50 - time // 2
        image = image[:, :, :, start : start + time]
    else:
        image = functional.interpolate(image, size=(FREQ, time), mode="bilinear")
    return image[0].permute(1, 2, 0)


@pytest.mark.parametrize("time", [1, 2, 7, 50, 99, 100, 101, 102, 150, 202, 500])
def test_positions_for_other_lengths(time: int) -> None:
    encoder = AST.tiny(0)
    table = encoder.v.pos_embed[0, 2:].reshape(FREQ, TIME, -1)
    found = encoder.v.positions(time)
    assert torch.allclose(found, published_positions(table, time), atol=1e-6)
    if time <= TIME:
        assert torch.equal(found, published_positions(table, time))


def test_frames_can_be_fixed() -> None:
    waveform = torch.randn(1, 16_000, generator=torch.Generator().manual_seed(0))
    encoder = AST.tiny(0)
    assert encoder(waveform, ["layer_00"])["layer_00"].shape[1:3] == (9, FREQ)
    fixed = AST(ASTConfig(**{**vars(encoder.config), "frames": 1024}))
    assert fixed.min_samples == 400
    assert fixed(waveform[:, :400], ["layer_00"])["layer_00"].shape[1:3] == (TIME, FREQ)


def test_the_last_layer_goes_through_the_final_norm() -> None:
    encoder = AST.tiny(0)
    logmel = torch.randn(1, 100, 128, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        found = encoder.tokens(logmel, ["layer_02", "layer_03"])
        assert torch.equal(found["layer_03"], encoder.v.norm(encoder.v.blocks[2](found["layer_02"])))


def test_base_has_the_published_parameters() -> None:
    with torch.device("meta"):
        state = AST(ASTConfig()).state_dict()
    assert state["v.pos_embed"].shape == (1, 1214, 768)
    assert state["v.blocks.11.attn.qkv.weight"].shape == (2304, 768)
    assert state["mlp_head.1.weight"].shape == (527, 768)


def random_weights(encoder: AST) -> dict[str, Tensor]:
    """Large enough that every part is felt, made from one seed."""
    generator = torch.Generator().manual_seed(0)
    return {
        name: 0.2 * torch.randn(value.shape, generator=generator) + float("norm" in name and name.endswith("weight"))
        for name, value in sorted(encoder.state_dict().items())
    }


def random_clip() -> Tensor:
    return torch.randn(1, 1024, 128, generator=torch.Generator().manual_seed(1))


def small() -> AST:
    encoder = AST(ASTConfig(dim=64, hidden=128, heads=2, depth=3, classes=11)).eval()
    encoder.load_state_dict(random_weights(encoder))
    return encoder


def in_transformers(state: dict[str, Tensor], clip: Tensor) -> dict[str, Tensor]:
    """Hidden states and logits that `transformers` (5.24) gives with these weights."""
    import transformers

    model = transformers.ASTForAudioClassification(
        transformers.ASTConfig(
            hidden_size=64,
            num_hidden_layers=3,
            num_attention_heads=2,
            intermediate_size=128,
            layer_norm_eps=1e-6,
            num_labels=11,
            max_length=1024,
        )
    ).eval()
    model.classifier.layernorm.eps = 1e-5  # as in the original, whose head has PyTorch's default
    body = "audio_spectrogram_transformer."
    renamed = {
        f"{body}embeddings.cls_token": state["v.cls_token"],
        f"{body}embeddings.distillation_token": state["v.dist_token"],
        f"{body}embeddings.position_embeddings": state["v.pos_embed"],
    }
    pairs = {
        "v.patch_embed.proj": f"{body}embeddings.patch_embeddings.projection",
        "v.norm": f"{body}layernorm",
        "mlp_head.0": "classifier.layernorm",
        "mlp_head.1": "classifier.dense",
    }
    for i in range(3):
        block, layer = f"v.blocks.{i}", f"{body}layers.{i}"
        pairs |= {
            f"{block}.norm1": f"{layer}.layernorm_before",
            f"{block}.norm2": f"{layer}.layernorm_after",
            f"{block}.attn.proj": f"{layer}.attention.o_proj",
            f"{block}.mlp.fc1": f"{layer}.mlp.fc1",
            f"{block}.mlp.fc2": f"{layer}.mlp.fc2",
        }
        for part in ("weight", "bias"):
            qkv = state[f"{block}.attn.qkv.{part}"].chunk(3)
            for kind, value in zip("qkv", qkv, strict=True):
                renamed[f"{layer}.attention.{kind}_proj.{part}"] = value
    for own, theirs in pairs.items():
        for part in ("weight", "bias"):
            renamed[f"{theirs}.{part}"] = state[f"{own}.{part}"]
    model.load_state_dict(renamed)
    with torch.no_grad():
        out = model(clip, output_hidden_states=True)
        body_out = model.audio_spectrogram_transformer(clip).last_hidden_state
    return {
        **{f"layer_{i:02d}": out.hidden_states[i] for i in range(3)},
        "layer_03": body_out,
        "logits": out.logits,
    }


def thinned(name: str, value: np.ndarray) -> np.ndarray:
    """Every 31st token, which 101 patches in time and 12 in frequency have no common divisor with."""
    return value if name == "logits" else value[:, ::31]


@torch.no_grad()
def test_golden_vectors_of_transformers(relative: Callable[..., float]) -> None:
    """`ast_transformers.npz` is `thinned` of what `in_transformers` gives, so it needs no `transformers` here."""
    encoder = small()
    golden = np.load(GOLDEN)
    found = {**encoder.tokens(random_clip(), encoder.layers), "logits": encoder.logits(random_clip())}
    assert set(golden) == set(found)
    for name, value in found.items():
        assert relative(thinned(name, value.numpy()), golden[name]) < 5e-6


if __name__ == "__main__":  # computes the golden vectors again, if transformers is installed
    made = in_transformers(random_weights(small()), random_clip())
    np.savez_compressed(GOLDEN, **{name: thinned(name, value.numpy()) for name, value in made.items()})
