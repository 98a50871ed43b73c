"""Published checkpoints of the form `{"cfg": settings, "model": weights}`, and what all published weights must be."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from training.encoders.base import CheckpointError
from training.encoders.checkpoint import load_strict

# A name that one architecture alone has. Order matters: a tokenizer is a BEATs encoder with a quantizer.
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
    """Which architecture parameters of these names belong to, if it is one we know."""
    return next((kind for kind, sign in _SIGNS.items() if any(sign in str(name) for name in names)), None)


def require(names: Mapping[str, Any], kind: str, path: Path) -> None:
    """Check by their names that weights belong to an architecture.

    Raises:
        CheckpointError: names the architecture that was found instead.
    """
    found = recognize(names)
    if found != kind:
        listed = ", ".join(map(str, list(names)[:3]))
        what = f"a checkpoint of {found}" if found else f"none that is known (it begins with {listed})"
        raise CheckpointError(f"{path} is no checkpoint of {kind}: it is {what}.")


def settings(found: Any, key: str, path: Path) -> Mapping[str, Any]:
    """Follow dotted `key` into nested mappings, to a mapping.

    Raises:
        CheckpointError: there is none.
    """
    part = found
    for step in key.split("."):
        part = part.get(step) if isinstance(part, Mapping) else None
    if not isinstance(part, Mapping):
        raise CheckpointError(f"{path} has no mapping `{key}`, so it is not a published checkpoint.")
    return part


def number(cfg: Mapping[str, Any], key: str, path: Path) -> int:
    """A positive whole number among the settings.

    Raises:
        CheckpointError: it is missing or no such number.
    """
    value = cfg.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise CheckpointError(f"{path}: setting `{key}` is {value!r}, it must be a positive whole number.")
    return value


def check(cfg: Mapping[str, Any], handled: Mapping[str, Any], path: Path) -> None:
    """Refuse a variant of the architecture that our module does not have.

    Raises:
        CheckpointError: names the setting, its value and the one that is handled.
    """
    for key, value in handled.items():
        if cfg.get(key) != value:
            raise CheckpointError(f"{path}: setting `{key}` is {cfg.get(key)!r}, only {value!r} is handled.")


def load_finite(module: nn.Module, state: Mapping[str, Tensor], path: Path) -> None:
    """`load_strict`, and no weight may be NaN or infinite.

    Raises:
        CheckpointError: names the keys.
    """
    bad = [name for name, value in state.items() if not torch.isfinite(value).all()]
    if bad:
        raise CheckpointError(f"{path} holds NaN or infinite weights in {', '.join(bad[:8])}.")
    load_strict(module, state, path)
