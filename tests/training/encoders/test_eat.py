"""EAT and SSLAM against golden vectors of the published code, and their own rules."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from training.encoders.base import CheckpointError
from training.encoders.eat import EAT, SSLAM, EATConfig

Form = Callable[..., dict[str, Any]]


def test_a_clip_is_padded_to_a_whole_patch_or_to_the_frames_asked_for() -> None:
    waveform = torch.randn(1, 48_000, generator=torch.Generator().manual_seed(0))  # 298 frames
    config = EAT.tiny(0).config
    assert EAT(config)(waveform, ["layer_01"])["layer_01"].shape[1] == 19
    long = EATConfig(**{**vars(config), "frames": 1024, "positions": 512})
    assert EAT(long)(waveform, ["layer_01"])["layer_01"].shape[1] == 64
    with pytest.raises(ValueError, match="frames is 1000, it must be a multiple of 16"):
        EAT(EATConfig(frames=1000))


def test_a_clip_beyond_the_positions_is_refused() -> None:
    encoder = EAT.tiny(0)  # 96 patches, 15.36 s
    grid = encoder.grids(torch.zeros(1, 96 * 16, 128), ["layer_00"])["layer_00"]
    assert grid.shape[1] == 96
    with pytest.raises(ValueError, match=r"longer than 15.36 s"):
        encoder.grids(torch.zeros(1, 97 * 16, 128), ["layer_00"])


def test_cls_is_not_in_the_grid() -> None:
    encoder = EAT.tiny(0)
    logmel = torch.randn(1, 32, 128, generator=torch.Generator().manual_seed(0))
    tokens = encoder.tokens(logmel, ["layer_02"])["layer_02"]
    grid = encoder.grids(logmel, ["layer_02"])["layer_02"]
    assert tokens.shape == (1, 17, 32)
    assert torch.equal(tokens[:, 1:].reshape(1, 2, 8, 32), grid)


def test_what_pre_training_left_is_ignored_and_half_precision_is_widened(published_form: Form, tmp_path: Path) -> None:
    encoder = EAT.tiny(0)
    form = published_form(encoder)
    form["model"] = {name: value.half() for name, value in form["model"].items()}
    form["model"]["model.modality_encoders.IMAGE.decoder.proj.weight"] = torch.zeros(4, 4)
    form["model"]["_ema"] = {"blocks.0.norm1.weight": torch.zeros(32)}
    torch.save(form, tmp_path / "eat.pt")
    for kind in (EAT, SSLAM):
        loaded = kind.from_checkpoint(tmp_path / "eat.pt")
        assert all(value.dtype == torch.float32 for value in loaded.state_dict().values())
        name = "modality_encoders.IMAGE.fixed_positional_encoder.positions"
        assert torch.equal(loaded.state_dict()[name], encoder.state_dict()[name].half().float())
    assert EAT.from_checkpoint(tmp_path / "eat.pt", frames=1024).config.frames == 1024
    assert (SSLAM.name, EAT.name) == ("sslam", "eat")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layer_norm_first": True}, "`layer_norm_first` is True, only False is supported"),
        ({"norm_eps": 1e-5}, "`norm_eps` is 1e-05"),
        ({"depth": 4}, "missing: blocks.3.attn.proj.bias"),
        ({"embed_dim": "wide"}, "`embed_dim` is 'wide'"),
        ({"modalities": {}}, "no mapping `modalities.image`"),
        ({"modalities": {"image": {"patch_size": 8}}}, "`patch_size` is 8"),
    ],
)
def test_other_settings_are_refused(change: dict[str, Any], message: str, published_form: Form, tmp_path: Path) -> None:
    form = published_form(EAT.tiny(0))
    form["cfg"]["model"]["pretrained_model_args"]["model"].update(change)
    torch.save(form, tmp_path / "eat.pt")
    with pytest.raises(CheckpointError, match=message):
        EAT.from_checkpoint(tmp_path / "eat.pt")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prediction_mode": "MEAN_POOLING"}, "only 'CLS_TOKEN' is supported"),
        ({"num_classes": 7}, "head.weight .5, 32. instead of .7, 32."),
    ],
)
def test_other_heads_are_refused(change: dict[str, Any], message: str, published_form: Form, tmp_path: Path) -> None:
    form = published_form(EAT.tiny(0))
    form["cfg"]["model"].update(change)
    torch.save(form, tmp_path / "eat.pt")
    with pytest.raises(CheckpointError, match=message):
        EAT.from_checkpoint(tmp_path / "eat.pt")


def test_a_pretrained_encoder_has_no_head() -> None:
    with pytest.raises(ValueError, match="no head"):
        EAT(EATConfig(dim=16, hidden=16, heads=2, depth=1, positions=8)).logits(torch.zeros(1, 16, 128))


@pytest.mark.shared_data
def test_base_has_the_published_parameters(shared_dir: Path) -> None:
    published = {}
    for line in (shared_dir / "golden/eat/eat_base_names.tsv").read_text().splitlines():
        name, shape, *_ = line.split("\t")
        if ".decoder." not in name:
            published[name] = tuple(json.loads(shape))
    with torch.device("meta"):
        state = EAT(EATConfig()).state_dict()
    assert {name: tuple(value.shape) for name, value in state.items()} == published


@pytest.mark.shared_data
@pytest.mark.parametrize("name", ["eat_small", "eat_small_ft"])
@torch.no_grad()
def test_golden_vectors(name: str, shared_dir: Path, relative: Callable[..., float]) -> None:
    folder = shared_dir / "golden/eat"
    golden = np.load(folder / f"{name}.npz")
    encoder = EAT.from_checkpoint(folder / f"{name}.pt", frames=1024)
    patches: Any = encoder.modality_encoders["IMAGE"]
    seen: dict[str, Tensor] = {}
    patches.local_encoder.register_forward_hook(lambda *a: seen.update(patch_embed=a[2].flatten(1, 2)))
    patches.context_encoder.register_forward_hook(lambda *a: seen.update(pre_norm_in=a[1][0], encoder_in=a[2]))
    waveform = torch.from_numpy(np.load(folder / "eat_small.npz")["waveform"])[None]  # both were made from it
    inputs = {5e-6: torch.from_numpy(golden["fbank_norm"])[None], 2e-5: encoder.front_end(waveform)}
    for tolerance, logmel in inputs.items():
        found = encoder.tokens(logmel, encoder.layers)
        assert relative(found["layer_00"][0], golden["encoder_in"]) < tolerance
        for i in range(4):  # published code counts what the blocks give from 0
            assert relative(found[f"layer_{i + 1:02d}"][0], golden[f"layer_{i:02d}"]) < tolerance
        assert relative(found["layer_04"][0], golden["features"]) < tolerance
        for key, value in seen.items():
            assert relative(value[0], golden[key]) < tolerance
        if "logits" in golden:
            logits = encoder.logits(logmel)[0]
            assert relative(logits, golden["logits"]) < tolerance
            assert relative(logits.sigmoid(), golden["probs"]) < tolerance
    if "position" in golden:
        assert np.array_equal(patches.fixed_positional_encoder.positions[0, :512].numpy(), golden["position"])


@pytest.mark.shared_data
@pytest.mark.parametrize(("frames", "key"), [(None, "short_features_pad16"), (1024, "short_features_pad1024")])
@torch.no_grad()
def test_golden_vectors_of_a_short_clip(
    frames: int | None, key: str, shared_dir: Path, relative: Callable[..., float]
) -> None:
    golden = np.load(shared_dir / "golden/eat/eat_small.npz")
    encoder = EAT.from_checkpoint(shared_dir / "golden/eat/eat_small.pt", frames=frames)
    logmel = encoder.front_end(torch.from_numpy(golden["short_waveform"])[None])
    assert relative(encoder.tokens(logmel, ["layer_04"])["layer_04"][0], golden[key]) < 2e-5
