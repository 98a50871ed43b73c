"""Settings as frozen dataclasses, read from a TOML file of changed values and `key=value` overrides."""

import dataclasses
import difflib
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

_Section = TypeVar("_Section")


class ConfigError(Exception):
    """A config has an unknown key or a value of the wrong type."""


def read_toml(path: Path) -> dict[str, Any]:
    """Read the tables of a TOML file. Raises `ConfigError` if there is no such file, or it is not TOML."""
    if not path.is_file():
        raise ConfigError(f"There is no config at {path}.")
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not TOML: {error}") from error


def apply_overrides(table: dict[str, Any], overrides: Sequence[str]) -> None:
    """Set `key=value` in nested tables, as in `optim.steps=100`. Raises `ConfigError` if a text is no override."""
    for text in overrides:
        name, sign, written = text.partition("=")
        if not sign or not name:
            raise ConfigError(f"{text!r} is no override. Write key=value.")
        try:
            value = tomllib.loads(f"value = {written}")["value"]
        except tomllib.TOMLDecodeError:
            value = written  # a bare word is a string
        *parents, last = name.split(".")
        inside = table
        for parent in parents:
            inside = inside.setdefault(parent, {})
            if not isinstance(inside, dict):
                raise ConfigError(f"{parent!r} in {text!r} is a value, not a table.")
        inside[last] = value


def from_tables(settings: type[_Section], table: Mapping[str, Any]) -> _Section:
    """Create a dataclass from nested tables; keys that are absent keep their defaults.

    Raises:
        ConfigError: an unknown key (the message names the nearest key), or a value of the wrong type.
    """
    return _section(settings, table, "", tuple(_names(settings, "")))


def _section(section: type[_Section], table: Mapping[str, Any], prefix: str, keys: Sequence[str]) -> _Section:
    hints = get_type_hints(section)
    values: dict[str, Any] = {}
    for key, value in table.items():
        if key not in hints:
            near = difflib.get_close_matches(prefix + key, keys, n=1, cutoff=0.0)
            raise ConfigError(f"Unknown key {prefix + key!r}.{f' The nearest is {near[0]!r}.' if near else ''}")
        values[key] = _convert(hints[key], value, prefix + key, keys)
    return section(**values)


def _convert(kind: Any, value: Any, name: str, keys: Sequence[str]) -> Any:
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        if not isinstance(value, Mapping):
            raise ConfigError(f"{name!r} must be a table, not {value!r}.")
        return _section(kind, value, f"{name}.", keys)
    if get_origin(kind) is Literal:
        if value not in get_args(kind):
            raise ConfigError(f"{name!r} must be one of {', '.join(map(repr, get_args(kind)))}, not {value!r}.")
        return value
    if get_origin(kind) is tuple:
        part = get_args(kind)[0]
        if part is str and not isinstance(value, list | tuple):
            raise ConfigError(f"{name!r} must be a list of strings, not {value!r}.")
        parts = value if isinstance(value, list | tuple) else [value]
        # Keys of tables in a list are named without their index, as they are written in the file.
        return tuple(_convert(part, own, name, keys) for own in parts)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if type(value) is not kind:
        raise ConfigError(f"{name!r} must be of type {kind.__name__}, not {value!r}.")
    return value


def _names(section: type, prefix: str) -> Iterator[str]:
    for key, kind in get_type_hints(section).items():
        inner = get_args(kind)[0] if get_origin(kind) is tuple else kind
        if dataclasses.is_dataclass(inner) and isinstance(inner, type):
            yield from _names(inner, f"{prefix}{key}.")
        else:
            yield prefix + key
