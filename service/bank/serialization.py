"""Serializes a calibration as safetensors.

The arrays are tensors of the file. Everything else is a tree in JSON, in one more tensor. The types of the fields
determine what the tree is converted to, so a file names no class. It only chooses among the served backends.
"""

import json
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from functools import cache
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load as load_arrays
from safetensors.numpy import save

from service.bank.calibration import Calibration
from service.domain.backends import BACKENDS
from service.domain.backends.base import Backend

_BACKEND_NAMES = {backend: name for name, backend in BACKENDS.items()}
_TREE = "tree"


def dump(calibration: Calibration) -> bytes:
    """Serialize a calibration.

    Raises:
        TypeError: a field has a type that is not supported.
    """
    arrays: dict[str, NDArray[Any]] = {}
    tree = _encode(calibration, arrays)
    return save({**arrays, _TREE: np.frombuffer(json.dumps(tree).encode(), np.uint8)})


def load(data: bytes) -> Calibration:
    """Convert bytes from `dump` to a calibration.

    Raises:
        Exception: the bytes are damaged, or the fields of a class have changed since.
    """
    arrays = load_arrays(data)
    calibration: Calibration = _decode(Calibration, json.loads(arrays.pop(_TREE).tobytes()), arrays)
    return calibration


def _encode(value: Any, arrays: dict[str, NDArray[Any]]) -> Any:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, np.ndarray):
        name = str(len(arrays))
        # The memory order is kept, because the rounding of a matrix product depends on it.
        transposed = value.flags.f_contiguous and not value.flags.c_contiguous
        arrays[name] = np.ascontiguousarray(value.T if transposed else value)
        return [name, transposed]
    kind: Any = type(value)
    types = _types(kind)
    if types is not None:
        encoded = {name: _encode(getattr(value, name), arrays) for name in types}
        return {"backend": _BACKEND_NAMES[kind], "fields": encoded} if kind in _BACKEND_NAMES else encoded
    if isinstance(value, Mapping):
        return [[_encode(key, arrays), _encode(part, arrays)] for key, part in value.items()]
    if isinstance(value, frozenset | tuple):
        return [_encode(part, arrays) for part in value]
    raise TypeError(f"{type(value).__name__} cannot be serialized")


def _decode(kind: Any, tree: Any, arrays: Mapping[str, NDArray[Any]]) -> Any:
    origin, parameters = get_origin(kind), get_args(kind)
    if origin is UnionType:  # a type or None
        return None if tree is None else _decode(parameters[0], tree, arrays)
    if origin is tuple:
        return tuple(_decode(parameters[0], part, arrays) for part in tree)
    if origin is np.ndarray:
        name, transposed = tree
        return arrays[name].T if transposed else arrays[name]
    if kind is Backend:
        return _decode(BACKENDS[tree["backend"]], tree["fields"], arrays)
    if origin is Mapping:
        of_key, of_value = parameters
        return {_decode(of_key, key, arrays): _decode(of_value, value, arrays) for key, value in tree}
    if origin is frozenset:
        return frozenset(_decode(parameters[0], part, arrays) for part in tree)
    types = _types(kind)
    if types is None:  # a number, a string or an enumeration
        return kind(tree)
    if tree.keys() != types.keys():
        raise ValueError(f"the fields of {kind.__name__} are {', '.join(types)}, not {', '.join(tree)}")
    return kind(**{name: _decode(of, tree[name], arrays) for name, of in types.items()})


@cache
def _types(kind: Any) -> dict[str, Any] | None:
    """Return the types of the fields of a dataclass or named tuple, or None for other types."""
    if is_dataclass(kind):
        names = tuple(field.name for field in fields(kind))
    elif hasattr(kind, "_fields"):
        names = kind._fields
    else:
        return None
    hints = get_type_hints(kind)
    return {name: hints[name] for name in names}
