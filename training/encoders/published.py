"""Checks of published checkpoints, many of which have the form `{"cfg": settings, "model": weights}`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from training.encoders.base import CheckpointError
from training.encoders.checkpoint import load_strict

# Part of a name that only one architecture has. Order matters: a tokenizer is a BEATs encoder with a quantizer.
_SIGNS = {
    "BEATs tokenizer": "quantize.",
    "BEATs": "self_attn.grep_a",
    "EAT or SSLAM": "modality_encoders.IMAGE.",
    "AST": "v.dist_token",
    "EfficientAT": "features.0.0.weight",
    "AST as `transformers` saves it": "embeddings.distillation_token",
    "fairseq wav2vec or HuBERT": "feature_extractor.conv_layers.",
}


def recognize(names: Mapping[str, Any]) -> str | None:
    """Return the architecture of parameters by their names; None if it is unknown."""
    return next((kind for kind, sign in _SIGNS.items() if any(sign in str(name) for name in names)), None)


def require(names: Mapping[str, Any], kind: str, path: Path) -> None:
    """Check that weights belong to an architecture, by their names.

    Raises:
        CheckpointError: the weights belong to another architecture, which the message names.
    """
    found = recognize(names)
    if found != kind:
        listed = ", ".join(map(str, list(names)[:3]))
        what = f"a checkpoint of {found}" if found else f"of an unknown architecture (it begins with {listed})"
        raise CheckpointError(f"{path} is not a checkpoint of {kind}: it is {what}.")


def settings(found: Any, key: str, path: Path) -> Mapping[str, Any]:
    """Return the mapping at a dotted `key` of nested mappings.

    Raises:
        CheckpointError: there is no such mapping.
    """
    part = found
    for step in key.split("."):
        part = part.get(step) if isinstance(part, Mapping) else None
    if not isinstance(part, Mapping):
        raise CheckpointError(f"{path} has no mapping `{key}`, so it is not a published checkpoint.")
    return part


def number(cfg: Mapping[str, Any], key: str, path: Path) -> int:
    """Return a setting that must be a positive integer.

    Raises:
        CheckpointError: the setting is missing or not a positive integer.
    """
    value = cfg.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise CheckpointError(f"{path}: setting `{key}` is {value!r}, it must be a positive integer.")
    return value


def check(cfg: Mapping[str, Any], handled: Mapping[str, Any], path: Path) -> None:
    """Refuse variants of an architecture that are not implemented.

    Raises:
        CheckpointError: a setting has another value than the implemented one; the message names both.
    """
    for key, value in handled.items():
        if cfg.get(key) != value:
            raise CheckpointError(f"{path}: setting `{key}` is {cfg.get(key)!r}, only {value!r} is supported.")


def load_finite(module: nn.Module, state: Mapping[str, Tensor], path: Path) -> None:
    """Load a state dict as `load_strict`; no weight may be NaN or infinite.

    Raises:
        CheckpointError: keys differ or weights are not finite; the message names them.
    """
    bad = [name for name, value in state.items() if not torch.isfinite(value).all()]
    if bad:
        raise CheckpointError(f"{path} has NaN or infinite weights in {', '.join(bad[:8])}.")
    load_strict(module, state, path)
