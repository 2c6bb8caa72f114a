"""Functions of two operands, arrays or numbers, by MXNet's names.

Comparisons give 0 and 1 in the dtype of the operands, not booleans.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from asyncmod.nd.array import NDArray

Function = Callable[[Any, Any], NDArray]

_UFUNCS: dict[str, np.ufunc] = {
    "add": np.add,
    "subtract": np.subtract,
    "multiply": np.multiply,
    "divide": np.true_divide,
    "true_divide": np.true_divide,
    "modulo": np.mod,
    "power": np.power,
    "maximum": np.maximum,
    "minimum": np.minimum,
    "hypot": np.hypot,
    "equal": np.equal,
    "not_equal": np.not_equal,
    "greater": np.greater,
    "greater_equal": np.greater_equal,
    "lesser": np.less,
    "lesser_equal": np.less_equal,
    "logical_and": np.logical_and,
    "logical_or": np.logical_or,
    "logical_xor": np.logical_xor,
}


def _make(name: str, ufunc: np.ufunc) -> Function:
    def function(lhs: Any, rhs: Any) -> NDArray:
        result = np.asarray(ufunc(lhs, rhs))
        if result.dtype == np.bool_:
            result = result.astype(np.result_type(lhs, rhs))
        return result.view(NDArray)

    function.__name__ = function.__qualname__ = name
    function.__module__ = "asyncmod.nd"
    function.__doc__ = f"`{name}`, elementwise, with broadcasting."
    return function


FUNCTIONS = {name: _make(name, ufunc) for name, ufunc in _UFUNCS.items()}
