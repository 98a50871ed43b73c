"""Finds encoder classes: built-in ones, those registered by other packages, and classes in user modules."""

import importlib
import inspect
import sys
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

from training.encoders.ast import AST
from training.encoders.base import Encoder
from training.encoders.beats import BEATs
from training.encoders.eat import EAT, SSLAM
from training.encoders.efficientat import EfficientAT, EfficientAT7k, EfficientAT16k
from training.toml_settings import ConfigError

ENCODERS: dict[str, type[Encoder]] = {
    encoder.name: encoder for encoder in (AST, BEATs, EAT, EfficientAT, EfficientAT16k, EfficientAT7k, SSLAM)
}
GROUP = "offkey.encoders"  # entry points by which other packages register encoders

_STATED = ("name", "license", "attribution")  # class attributes that a bundle needs


def find_encoder(name: str, key: str = "encoder.name") -> type[Encoder]:
    """Return the encoder class that a config names.

    Args:
        name: built-in encoder, entry point in the group `offkey.encoders`, or `package.module:ClassName` of a
            module in the working folder or the environment. That module is imported.
        key: name of the setting, for messages.

    Raises:
        ConfigError: no such encoder, two packages register its name, or the class is not a complete `Encoder`.
    """
    if is_path(name):
        found = _complete(_from_module(name, key), name)
        if found.name in ENCODERS and ENCODERS[found.name] is not found:
            raise ConfigError(
                f"{name} has the name {found.name!r} of a built-in encoder, so that their cached results would be "
                "mixed up. Set `name` in the class to another one."
            )
        return found
    points = _registered(name)
    owners = ["offkey"] * (name in ENCODERS) + [_owner(point) for point in points]
    if len(owners) > 1:
        raise ConfigError(
            f"The encoder {name!r} (`{key}`) is registered by {' and '.join(sorted(owners))}. Uninstall all but one, "
            "or give the class: package.module:ClassName."
        )
    if points:
        return _from_entry_point(points[0])
    if name in ENCODERS:
        return ENCODERS[name]
    listed = sorted({*ENCODERS, *(point.name for point in entry_points(group=GROUP))})
    raise ConfigError(
        f"There is no encoder {name!r} (`{key}`). Encoders: {', '.join(listed)}. Write your own encoder as "
        "package.module:ClassName."
    )


def encoder_reference(kind: type[Encoder]) -> str:
    """Return the name by which `find_encoder` finds a class: its own if it is registered, otherwise its path."""
    if ENCODERS.get(kind.name) is kind or any(point.load() is kind for point in _registered(kind.name)):
        return kind.name
    return f"{kind.__module__}:{kind.__qualname__}"


def is_path(name: str) -> bool:
    """Return whether a name is the path of a class; finding such a class imports its module."""
    return ":" in name


def _registered(name: str) -> list[EntryPoint]:
    return [point for point in entry_points(group=GROUP) if point.name == name]


def _owner(point: EntryPoint) -> str:
    return point.dist.name if point.dist is not None else point.value


def _from_module(name: str, key: str) -> Any:
    module, _, attribute = name.partition(":")
    if not (attribute.isidentifier() and all(part.isidentifier() for part in module.split("."))):
        raise ConfigError(f"`{key}` is {name!r}. Write your own class as package.module:ClassName.")
    folder = str(Path.cwd())
    if folder not in sys.path and "" not in sys.path:
        sys.path.append(folder)  # last: a file in the working folder must not replace an installed module
    try:
        found = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise  # the module exists, and one of its imports is missing
        raise ConfigError(
            f"There is no module {error.name!r} (`{key}` is {name!r}) in {folder} or among the installed packages. "
            "Run the command in the folder where the module is, or install it."
        ) from None
    if not hasattr(found, attribute):
        raise ConfigError(
            f"The module {module!r} has no {attribute!r} (`{key}` is {name!r}). It was imported from "
            f"{getattr(found, '__file__', None) or 'a folder without __init__.py'}."
        )
    return getattr(found, attribute)


def _from_entry_point(point: EntryPoint) -> type[Encoder]:
    where = f"The package {_owner(point)} registers the encoder {point.name!r} as {point.value!r}"
    try:
        loaded = point.load()
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"{where}, which cannot be loaded: {error}. Install it again.") from error
    found = _complete(loaded, point.value)
    if found.name != point.name:
        raise ConfigError(f"{where}, whose `name` is {found.name!r}. The two must be equal.")
    return found


def _complete(found: Any, name: str) -> type[Encoder]:
    """Return a class if it is a complete `Encoder`. Raises `ConfigError`."""
    if not (isinstance(found, type) and issubclass(found, Encoder)):
        kind = "a class" if isinstance(found, type) else f"of type {type(found).__name__}"
        raise ConfigError(f"{name} is {kind}, but not a subclass of training.encoders.Encoder.")
    if inspect.isabstract(found):
        raise ConfigError(f"{name} does not define {', '.join(sorted(found.__abstractmethods__))} of Encoder.")
    missing = [one for one in _STATED if not isinstance(getattr(found, one, None), str) or not getattr(found, one)]
    if missing:
        raise ConfigError(f"{name} does not set {', '.join(missing)}. Each is a class attribute, a string.")
    return found
