"""Give the methods of the clients the name, signature and docstring of the call they make."""

import functools
import inspect
from collections.abc import AsyncIterator, Callable, Iterator
from types import GenericAlias
from typing import Any, TypeVar, get_args

M = TypeVar("M", bound=Callable[..., Any])


def describe(method: M, build: Callable[..., Any], items: type[Iterator[Any] | AsyncIterator[Any]] | None = None) -> M:
    """Return `method` with the documentation of `build`.

    Args:
        method: method of a client.
        build: function that returns the request, or the listing, which the method sends.
        items: iterator type of a method that lists; None if `build` returns a request.
    """
    signature = inspect.signature(build)
    answer = get_args(signature.return_annotation)[-1]
    own = inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY)
    functools.update_wrapper(method, build)
    del method.__dict__["__wrapped__"]  # its signature has no self
    method.__dict__["__signature__"] = signature.replace(
        parameters=[own, *signature.parameters.values()],
        return_annotation=answer if items is None else GenericAlias(items, (answer,)),
    )
    return method
