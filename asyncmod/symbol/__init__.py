"""mx.symbol: networks as graphs of operators, one function for each of them.

`mx.sym.FullyConnected`, `mx.sym.relu` and all others are made from the operators that
are registered, under every name that MXNet gives them.

Next: `asyncmod.symbol.symbol`.
"""

from __future__ import annotations

from collections.abc import Callable

from asyncmod.absent import ABSENT, refuse
from asyncmod.symbol import random
from asyncmod.symbol.attribute_scope import AttrScope
from asyncmod.symbol.files import load, load_json
from asyncmod.symbol.functions import (
    arange,
    eye,
    full,
    histogram,
    hypot,
    linspace,
    maximum,
    minimum,
    ones,
    pow,
    power,
    split_v2,
    zeros,
)
from asyncmod.symbol.names import NameManager, Prefix
from asyncmod.symbol.namespaces import _internal, contrib, linalg, sparse
from asyncmod.symbol.operators import operator_function
from asyncmod.symbol.symbol import Symbol
from asyncmod.symbol.variables import Group, Variable, var
from runtime.errors import OperatorError
from runtime.graph import registry

__all__ = [
    "AttrScope",
    "Group",
    "NameManager",
    "Prefix",
    "Symbol",
    "Variable",
    "_internal",
    "arange",
    "contrib",
    "eye",
    "full",
    "histogram",
    "hypot",
    "linalg",
    "linspace",
    "load",
    "load_json",
    "maximum",
    "minimum",
    "ones",
    "pow",
    "power",
    "random",
    "sparse",
    "split_v2",
    "var",
    "zeros",
]


def __getattr__(name: str) -> Callable[..., Symbol]:
    """The function of an operator."""
    if name.startswith("__"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name in ABSENT:
        raise refuse(f"mx.sym.{name}", name)
    try:
        return operator_function(name)
    except OperatorError as error:
        raise AttributeError(f"mx.symbol has no `{name}`: {error}") from None


def __dir__() -> list[str]:
    return sorted({*globals(), *registry.names()})
