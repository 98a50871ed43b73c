"""Fixtures of the tests of encoders."""

import doctest
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from training.encoders.ast import AST
from training.encoders.base import Encoder
from training.encoders.beats import BEATs
from training.encoders.eat import EAT


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def relative() -> Callable[[Any, Any], float]:
    """`relative(found, expected)`: the largest difference over the largest value that was expected."""

    def error(found: Any, expected: Any) -> float:
        a, b = (np.asarray(x.detach() if isinstance(x, Tensor) else x) for x in (found, expected))
        assert a.shape == b.shape
        return float(np.abs(a - b).max() / np.abs(b).max())

    return error


def _beats_form(encoder: BEATs) -> dict[str, Any]:
    config = encoder.config
    model = encoder.state_dict()
    table = model["encoder.layers.0.self_attn.relative_attention_bias.weight"]
    for i in range(config.depth):
        model[f"encoder.layers.{i}.self_attn.relative_attention_bias.weight"] = table
    cfg = {
        "input_patch_size": 16,
        "conv_bias": False,
        "activation_fn": "gelu",
        "layer_norm_first": False,
        "deep_norm": True,
        "relative_position_embedding": True,
        "gru_rel_pos": True,
        "embed_dim": config.patch_dim,
        "encoder_embed_dim": config.dim,
        "encoder_ffn_embed_dim": config.hidden,
        "encoder_attention_heads": config.heads,
        "encoder_layers": config.depth,
        "conv_pos": config.conv_pos,
        "conv_pos_groups": config.conv_pos_groups,
        "num_buckets": config.num_buckets,
        "max_distance": config.max_distance,
        "finetuned_model": True,
        "predictor_class": config.classes,
    }
    return {"cfg": cfg, "model": model, "label_dict": {0: "/m/0"}}


def _eat_form(encoder: EAT) -> dict[str, Any]:
    config = encoder.config
    pretrained = {
        "embed_dim": config.dim,
        "mlp_ratio": config.hidden / config.dim,
        "num_heads": config.heads,
        "depth": config.depth,
        "norm_eps": 1e-6,
        "layer_norm_first": False,
        "modalities": {
            "image": {
                "patch_size": 16,
                "in_chans": 1,
                "num_extra_tokens": 1,
                "prenet_depth": 0,
                "fixed_positions": True,
                "use_alibi_encoder": False,
            }
        },
    }
    head = {"prediction_mode": "CLS_TOKEN", "use_fc_norm": True, "num_classes": config.classes}
    model = {
        name if name.startswith(("head.", "fc_norm.")) else f"model.{name}": value
        for name, value in encoder.state_dict().items()
    }
    return {"args": None, "cfg": {"model": {**head, "pretrained_model_args": {"model": pretrained}}}, "model": model}


def _ast_form(encoder: AST) -> dict[str, Any]:
    model = {f"module.{name}": value for name, value in encoder.state_dict().items()}
    for head in ("v.head", "v.head_dist"):
        model[f"module.{head}.weight"] = torch.zeros(1000, encoder.config.dim)
        model[f"module.{head}.bias"] = torch.zeros(1000)
    return model


@pytest.fixture(scope="session")
def published_form() -> Callable[[Encoder], dict[str, Any]]:
    """`published_form(encoder)`: what a published checkpoint of such an encoder holds, to be changed and saved."""

    def form(encoder: Encoder) -> dict[str, Any]:
        if isinstance(encoder, BEATs):
            return _beats_form(encoder)
        if isinstance(encoder, EAT):
            return _eat_form(encoder)
        assert isinstance(encoder, AST)
        return _ast_form(encoder)

    return form


@pytest.fixture(scope="session")
def warm_offkey(tmp_path_factory: pytest.TempPathFactory, trace_folder: Path) -> Iterator[Path]:
    """A folder with the command `offkey`, which runs in forks of a process that has loaded PyTorch."""
    folder = tmp_path_factory.mktemp("bin")
    script, place = Path(__file__).with_name("warm_offkey.py"), folder / "socket"
    (folder / "offkey").write_text(f'#!/bin/sh\nexec "{sys.executable}" -S -E "{script}" run "{place}" "$@"\n')
    (folder / "offkey").chmod(0o755)
    environ = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        [sys.executable, str(script), "serve", str(place), str(trace_folder)], env=environ
    ) as process:
        deadline = time.monotonic() + 60
        while not place.exists():
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)
        yield folder
        process.terminate()


@pytest.fixture(scope="session")
def follow(warm_offkey: Path) -> Callable[[Path, list[str]], str]:
    """`follow(folder, lines)`: run the commands of a console example, check what it shows, and return what was printed.

    Lines of commands begin with `$ `; `...` stands for anything. Port 8000 of the example is a free one.
    """

    def run(folder: Path, lines: list[str]) -> str:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = str(free.getsockname()[1])
        commands = [line.removeprefix("$ ").replace("8000", port) for line in lines if line.startswith("$ ")]
        expected = "".join(f"{line}\n" for line in lines if not line.startswith("$ "))
        found = subprocess.run(
            ["bash", "-c", "set -em; trap 'kill $(jobs -p) 2>/dev/null || true' EXIT\n" + "\n".join(commands)],
            cwd=folder,
            env={
                **os.environ,
                "PATH": f"{warm_offkey}:{Path(sys.executable).parent}:{os.environ['PATH']}",
                "OMP_NUM_THREADS": "1",
                "OFFKEY_PORT": port,
                "OFFKEY_URL": f"http://127.0.0.1:{port}",
            },
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
        assert found.returncode == 0, found.stderr
        assert doctest.OutputChecker().check_output(expected, found.stdout, doctest.ELLIPSIS), found.stdout
        return found.stdout

    return run
