"""MXNet's sub-namespaces of operators: `mx.sym.sparse.dot`, `mx.nd.contrib....`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from asyncmod.absent import ABSENT
from asyncmod.symbol.operators import operator_function
from runtime.errors import OperatorError


class Namespace:
    """Operators whose names begin with a prefix, without it.

    Args:
        name: Such as `mx.sym.contrib`.
        prefix: Such as `_contrib_`.
        hint: What to say of operators that are not here.
        make: Gives the function of an operator.
    """

    def __init__(
        self,
        name: str,
        prefix: str = "",
        hint: str = "",
        make: Callable[[str], Callable[..., Any]] = operator_function,
    ) -> None:
        self._name = name
        self._prefix = prefix
        self._hint = hint
        self._make = make

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name.startswith("__"):
            raise AttributeError(f"{self._name} has no attribute {name!r}")
        try:
            return self._make(self._prefix + name)
        except (OperatorError, AttributeError) as error:
            raise AttributeError(
                f"asyncmod has no `{self._name}.{name}`: {self._hint or error}"
            ) from None


# Storage types are inferred, so that sparse operators are the same ones.
sparse = Namespace("mx.sym.sparse")
contrib = Namespace("mx.sym.contrib", "_contrib_", ABSENT["contrib"])
linalg = Namespace("mx.sym.linalg", "_linalg_")
_internal = Namespace("mx.sym._internal")
