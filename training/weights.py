"""Reads and writes an encoder's weights in a bundle, so that another student can start from them."""

import json
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from service.encoder.bundle import WEIGHTS_FILE, file_sha256, load_manifest
from training.encoders import CheckpointError, Encoder, encoder_reference, find_encoder, is_path
from training.encoders.published import load_finite
from training.toml_settings import ConfigError

_ENCODER, _SIZES = "encoder", "sizes"  # keys of the file's metadata


def write_weights(encoder: Encoder, path: Path) -> str:
    """Write all weights of an encoder, including layers that are not read; return the file's SHA-256."""
    tensors = {name: value.contiguous() for name, value in encoder.state_dict().items()}
    # `save_file` would create a file that only its owner can read.
    path.write_bytes(save(tensors, {_ENCODER: encoder_reference(type(encoder)), _SIZES: json.dumps(encoder.sizes)}))
    return file_sha256(path)


def read_weights(bundle: Path, name: str | None = None) -> Encoder:
    """Load the encoder of a bundle for training.

    Args:
        bundle: folder of the bundle.
        name: expected encoder, as in a config; the weights may also be of an encoder that it `fits`. None accepts every
            registered encoder. A class that is named by a path
            is user code, and is imported only if the caller names it.

    Raises:
        BundleError: the bundle is damaged.
        CheckpointError: the bundle has no weights, weights of another encoder, or weights that do not fit.
        ConfigError: there is no encoder `name`.
    """
    manifest, path = load_manifest(bundle), bundle / WEIGHTS_FILE
    if manifest.weights_sha256 is None or not path.is_file():
        raise CheckpointError(
            f"No student can start from {bundle}: its graph has no gradients, and the bundle has no {WEIGHTS_FILE}. "
            "Start from the run that it was exported from, or from a bundle exported without --no-weights and --int8."
        )
    if file_sha256(path) != manifest.weights_sha256:
        raise CheckpointError(f"{path} is damaged or was replaced: its sha256 differs from the one in the manifest.")
    try:
        with safe_open(path, framework="pt") as file:
            about = file.metadata() or {}
            state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a mapping)
    except SafetensorError as error:
        raise CheckpointError(f"{path} is not a safetensors file: {error}.") from error
    held = about.get(_ENCODER, "")
    kind = _kind(held, name, bundle)
    try:
        encoder = kind.of_sizes(json.loads(about[_SIZES]))
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path} has no valid sizes of an encoder {held}: {error}.") from error
    load_finite(encoder, state, path)
    return encoder


def _kind(held: str, name: str | None, bundle: Path) -> type[Encoder]:
    """Return the class `name`, which the weights in a bundle must fit; without a name, the class of the weights."""
    if name is not None:
        kind = find_encoder(name)
        if held not in (encoder_reference(kind), *kind.fits):
            raise CheckpointError(f"{bundle} holds {held}, not {name}. Set encoder.name to it.")
        return kind
    if is_path(held):
        raise CheckpointError(
            f"{bundle} holds weights of {held}, a class that is not part of Offkey. It is imported only if you name "
            f"it: --encoder {held}"
        )
    try:
        return find_encoder(held)
    except ConfigError as error:
        raise CheckpointError(f"{bundle} holds weights of an encoder that is not installed here. {error}") from error
