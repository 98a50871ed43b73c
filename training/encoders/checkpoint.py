"""Reads published checkpoints: only tensors are unpickled, and every key must match."""

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from training.encoders.base import CheckpointError

_NAMES_SHOWN = 8


def read_checkpoint(path: Path) -> Any:
    """Unpickle a `.pt` or `.pth` file with `weights_only=True`, on the CPU.

    Raises:
        CheckpointError: no such file, not a checkpoint, or a checkpoint with other objects than plain data.
    """
    if not path.is_file():
        raise CheckpointError(f"There is no checkpoint at {path}. Check the path in `encoder.checkpoint`.")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise CheckpointError(f"{path} is not a checkpoint of plain tensors, so it was not loaded: {reason}") from error


def as_state_dict(found: Any, path: Path) -> dict[str, Tensor]:
    """Check that the content of a checkpoint is a mapping of names to tensors, and return it.

    Raises:
        CheckpointError: the content is something else.
    """
    if not isinstance(found, Mapping) or not all(isinstance(value, Tensor) for value in found.values()):
        kind = type(found).__name__
        keys = ", ".join(map(str, list(found)[:_NAMES_SHOWN])) if isinstance(found, Mapping) else ""
        raise CheckpointError(f"{path} is not a plain state dict: it contains a {kind} ({keys}).")
    return {str(name): value for name, value in found.items()}


def load_strict(module: nn.Module, state: Mapping[str, Tensor], path: Path) -> None:
    """Load a state dict. No key may be missing, unexpected or of another shape.

    Raises:
        CheckpointError: the keys differ; the message names them.
    """
    own = module.state_dict()
    faults = {
        "missing": sorted(own.keys() - state.keys()),
        "unexpected": sorted(state.keys() - own.keys()),
        "of another shape": sorted(
            f"{name} {tuple(state[name].shape)} instead of {tuple(own[name].shape)}"
            for name in own.keys() & state.keys()
            if own[name].shape != state[name].shape
        ),
    }
    if any(faults.values()):
        parts = [f"{kind}: {_few(names)}" for kind, names in faults.items() if names]
        raise CheckpointError(f"{path} does not fit {type(module).__name__}: {'; '.join(parts)}.")
    module.load_state_dict(dict(state))


def _few(names: list[str]) -> str:
    more = len(names) - _NAMES_SHOWN
    return ", ".join(names[:_NAMES_SHOWN]) + (f" and {more} more" if more > 0 else "")
