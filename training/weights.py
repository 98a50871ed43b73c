"""An encoder's weights beside the graph of a bundle, so that another student can start where this one ended."""

import json
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from service.encoder.bundle import WEIGHTS_FILE, file_sha256, load_manifest
from training.encoders import CheckpointError, Encoder, encoder_reference, find_encoder, is_path
from training.encoders.published import load_finite
from training.tables import ConfigError

_ENCODER, _SIZES = "encoder", "sizes"  # keys of the file's metadata


def write_weights(encoder: Encoder, path: Path) -> str:
    """Write all of an encoder's weights, those behind the layers that are read included. Returns the file's SHA-256."""
    tensors = {name: value.contiguous() for name, value in encoder.state_dict().items()}
    # `save_file` would leave a file that only its owner can read.
    path.write_bytes(save(tensors, {_ENCODER: encoder_reference(type(encoder)), _SIZES: json.dumps(encoder.sizes)}))
    return file_sha256(path)


def read_weights(bundle: Path, name: str | None = None) -> Encoder:
    """The encoder of a bundle, to be trained on.

    Args:
        bundle: folder with a manifest.
        name: of the encoder that is expected, as in a config; None takes any that is registered. A class that only a
            path names is code of the user's, and no file decides that it is imported.

    Raises:
        BundleError: the bundle is damaged.
        CheckpointError: it carries no weights, those of another encoder, or they do not fit it.
        ConfigError: there is no encoder `name`.
    """
    manifest, path = load_manifest(bundle), bundle / WEIGHTS_FILE
    if manifest.weights_sha256 is None or not path.is_file():
        raise CheckpointError(
            f"No student can start from {bundle}: its graph has no gradients, and it has no {WEIGHTS_FILE} beside it. "
            "Start from the run that it was exported from, or from a bundle exported without --no-weights and --int8."
        )
    if file_sha256(path) != manifest.weights_sha256:
        raise CheckpointError(f"{path} is damaged or was replaced: its sha256 is not the one in the manifest.")
    try:
        with safe_open(path, framework="pt") as file:
            about = file.metadata() or {}
            state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (no mapping)
    except SafetensorError as error:
        raise CheckpointError(f"{path} is no safetensors file: {error}.") from error
    held = about.get(_ENCODER, "")
    kind = _kind(held, name, bundle)
    try:
        encoder = kind.of_sizes(json.loads(about[_SIZES]))
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path} has no sizes that make an encoder {held}: {error}.") from error
    load_finite(encoder, state, path)
    return encoder


def _kind(held: str, name: str | None, bundle: Path) -> type[Encoder]:
    """Return the class of the weights that a bundle holds, which must be that of `name`."""
    if name is not None:
        kind = find_encoder(name)
        if encoder_reference(kind) != held:
            raise CheckpointError(f"{bundle} holds {held}, not {name}. Set encoder.name to it.")
        return kind
    if is_path(held):
        raise CheckpointError(
            f"{bundle} holds weights of {held}, a class that is no part of Offkey. It is imported only if you name it: "
            f"--encoder {held}"
        )
    try:
        return find_encoder(held)
    except ConfigError as error:
        raise CheckpointError(f"{bundle} holds weights of an encoder that is not installed here. {error}") from error
