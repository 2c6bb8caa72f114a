"""MXNet's sub-namespaces of operators: `mx.sym.sparse.dot`, `mx.sym.contrib....`."""

from __future__ import annotations

from collections.abc import Callable

from asyncmod.absent import ABSENT
from asyncmod.symbol.operators import operator_function
from asyncmod.symbol.symbol import Symbol
from runtime.errors import OperatorError


class Namespace:
    """Operators whose names begin with a prefix, without it.

    Args:
        name: Such as `mx.sym.contrib`.
        prefix: Such as `_contrib_`.
        hint: What to say of operators that are not here.
    """

    def __init__(self, name: str, prefix: str = "", hint: str = "") -> None:
        self._name = name
        self._prefix = prefix
        self._hint = hint

    def __getattr__(self, name: str) -> Callable[..., Symbol]:
        if name.startswith("__"):
            raise AttributeError(f"{self._name} has no attribute {name!r}")
        try:
            return operator_function(self._prefix + name)
        except OperatorError as error:
            raise AttributeError(
                f"asyncmod has no `{self._name}.{name}`: {self._hint or error}"
            ) from None


# Storage types are inferred, so that sparse operators are the same ones.
sparse = Namespace("mx.sym.sparse")
contrib = Namespace("mx.sym.contrib", "_contrib_", ABSENT["contrib"])
_internal = Namespace("mx.sym._internal")
