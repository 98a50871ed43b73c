"""Objects as one file, and back: dataclasses and named tuples of numbers, names and arrays.

Nothing is ever run that a file names: only classes of this package that hold data are made again.
"""

import importlib
import io
import json
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

_HOME = "service."
_TREE = "tree"


def freeze(thing: object) -> bytes:
    """Write an object. Raises TypeError: something in it is not of the kinds above."""
    arrays: list[NDArray[Any]] = []
    tree = json.dumps(_shape(thing, arrays))
    file = io.BytesIO()
    named = {_TREE: np.frombuffer(tree.encode(), np.uint8), **{str(at): array for at, array in enumerate(arrays)}}
    # To mypy a dictionary could hold the function's own flags.
    np.savez(file, **named)  # type: ignore[arg-type]
    return file.getvalue()


def thaw(data: bytes) -> Any:  # what was frozen
    """Make an object again. Raises an exception of any kind if the bytes are not what `freeze` wrote."""
    with np.load(io.BytesIO(data), allow_pickle=False) as kept:  # a zip, of which each part has a checksum
        return _made(json.loads(kept[_TREE].tobytes()), kept)


def _shape(thing: object, arrays: list[NDArray[Any]]) -> Any:
    if isinstance(thing, StrEnum):
        return {"is": "enum", "of": _name(type(thing)), "value": thing.value}
    if thing is None or isinstance(thing, bool | int | float | str):
        return thing
    if isinstance(thing, np.ndarray):
        arrays.append(thing)
        return {"is": "array", "at": len(arrays) - 1}
    if is_dataclass(thing):
        parts = {field.name: _shape(getattr(thing, field.name), arrays) for field in fields(thing)}
        return {"is": "object", "of": _name(type(thing)), "parts": parts}
    if isinstance(thing, tuple) and hasattr(thing, "_asdict"):
        parts = {name: _shape(part, arrays) for name, part in thing._asdict().items()}
        return {"is": "object", "of": _name(type(thing)), "parts": parts}
    if isinstance(thing, tuple | frozenset):
        kind = "tuple" if isinstance(thing, tuple) else "set"
        return {"is": kind, "parts": [_shape(part, arrays) for part in thing]}
    if isinstance(thing, Mapping):
        return {"is": "map", "parts": [[_shape(key, arrays), _shape(part, arrays)] for key, part in thing.items()]}
    raise TypeError(f"{type(thing).__name__} cannot be kept")


def _made(shape: Any, arrays: Mapping[str, NDArray[Any]]) -> Any:
    if not isinstance(shape, dict):
        return shape
    match shape["is"]:
        case "enum":
            return _named(shape["of"])(shape["value"])
        case "array":
            return arrays[str(shape["at"])]
        case "object":
            return _named(shape["of"])(**{name: _made(part, arrays) for name, part in shape["parts"].items()})
        case "tuple":
            return tuple(_made(part, arrays) for part in shape["parts"])
        case "set":
            return frozenset(_made(part, arrays) for part in shape["parts"])
        case "map":
            return {_made(key, arrays): _made(part, arrays) for key, part in shape["parts"]}
        case other:
            raise ValueError(f"nothing is called {other}")


def _name(kind: type) -> str:
    if not kind.__module__.startswith(_HOME):
        raise TypeError(f"{kind.__name__} is not of this package")
    return f"{kind.__module__}:{kind.__qualname__}"


def _named(name: str) -> Any:
    module, _, kind = name.partition(":")
    if not module.startswith(_HOME) or "." in kind:
        raise ValueError(f"{name} is not of this package")
    found = getattr(importlib.import_module(module), kind)
    if not (isinstance(found, type) and (is_dataclass(found) or issubclass(found, tuple | StrEnum))):
        raise ValueError(f"{name} holds no data")
    return found
