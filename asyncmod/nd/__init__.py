"""`mx.nd`: the array that old scripts know, functions that make it, and operators.

All of it is synchronous NumPy code; nothing is computed behind the caller's back.

Next: `asyncmod.nd.array`.
"""

from __future__ import annotations

from typing import Any

from asyncmod.absent import ABSENT, refuse
from asyncmod.nd import sparse
from asyncmod.nd.arithmetic import FUNCTIONS
from asyncmod.nd.array import NDArray
from asyncmod.nd.files import load, save
from asyncmod.nd.make import (
    arange,
    array,
    concat,
    concatenate,
    empty,
    eye,
    from_numpy,
    full,
    linspace,
    moveaxis,
    ones,
    ones_like,
    split_v2,
    stack,
    waitall,
    zeros,
    zeros_like,
)
from asyncmod.nd.sparse import cast_storage

__all__ = [
    "NDArray",
    "arange",
    "array",
    "cast_storage",
    "concat",
    "concatenate",
    "empty",
    "eye",
    "from_numpy",
    "full",
    "linspace",
    "load",
    "moveaxis",
    "ones",
    "ones_like",
    "save",
    "sparse",
    "split_v2",
    "stack",
    "waitall",
    "zeros",
    "zeros_like",
]

_RANDOM = {
    "normal": "normal",
    "random_gamma": "gamma",
    "random_normal": "normal",
    "random_poisson": "poisson",
    "random_randint": "randint",
    "random_uniform": "uniform",
    "shuffle": "shuffle",
    "uniform": "uniform",
}


def __getattr__(name: str) -> Any:
    """An operator's function, a part or function of `mx.random`, or `mx.nd.contrib`."""
    if name in FUNCTIONS:
        return FUNCTIONS[name]
    if name.startswith("__"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name in ("contrib", "histogram", "linalg"):
        from asyncmod.nd import operators

        return getattr(operators, name)
    if name in ABSENT:
        raise refuse(f"mx.nd.{name}", name)
    if name == "random" or name in _RANDOM:
        from asyncmod import random

        return getattr(random, _RANDOM[name]) if name in _RANDOM else random
    if name.endswith("_update"):
        from asyncmod.nd.updates import UPDATES, update_function

        if name in UPDATES:
            return update_function(name)
    from asyncmod.nd.operators import operator_function

    return operator_function(name)


def __dir__() -> list[str]:
    from asyncmod.nd.updates import UPDATES
    from runtime.graph import registry

    others = ("contrib", "histogram", "linalg", "random", *_RANDOM)
    return sorted({*__all__, *FUNCTIONS, *UPDATES, *others, *registry.names()})
