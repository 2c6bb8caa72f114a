"""MXNet's sub-namespaces of operators: `mx.sym.sparse.dot`, `mx.sym.contrib....`."""

from __future__ import annotations

from collections.abc import Callable

from asyncmod.symbol.operators import operator_function
from asyncmod.symbol.symbol import Symbol
from runtime.errors import OperatorError


class Namespace:
    """Operators whose names begin with a prefix, without it.

    Args:
        name: Such as `mx.symbol.contrib`.
        prefix: Such as `_contrib_`.
    """

    def __init__(self, name: str, prefix: str = "") -> None:
        self._name = name
        self._prefix = prefix

    def __getattr__(self, name: str) -> Callable[..., Symbol]:
        if name.startswith("__"):
            raise AttributeError(f"{self._name} has no attribute {name!r}")
        try:
            return operator_function(self._prefix + name)
        except OperatorError as error:
            raise AttributeError(f"{self._name} has no `{name}`: {error}") from None


# Storage types are inferred, so that sparse operators are the same ones.
sparse = Namespace("mx.symbol.sparse")
contrib = Namespace("mx.symbol.contrib", "_contrib_")
_internal = Namespace("mx.symbol._internal")
