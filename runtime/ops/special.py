"""Special functions, by Python's own `math`: NumPy has none of them.

Sources: MXNet's `src/operator/mshadow_op.h`; digamma: Abramowitz and Stegun, "Handbook
of Mathematical Functions", 6.3.18.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from runtime.graph.registry import Array, Operator, register
from runtime.ops.elementwise import row
from runtime.ops.rules import one_shape


def _each(function: Any) -> Any:
    """Apply a function of one number; where it has no value the result is nan."""

    def guarded(x: float) -> float:
        try:
            return float(function(x))
        except (ValueError, OverflowError):
            return math.nan if x < 0 else math.inf

    loop = np.frompyfunc(guarded, 1, 1)

    def apply(x: Array) -> Array:
        return np.asarray(loop(x.astype(np.float64)), np.float64)

    return apply


def _erfinv(x: float) -> float:
    if abs(x) >= 1:
        return math.copysign(math.inf, x) if abs(x) == 1 else math.nan
    from statistics import NormalDist  # here, since it is slow to import

    y = NormalDist().inv_cdf((x + 1) / 2) / math.sqrt(2)
    # One Newton step, where the sum x + 1 has lost digits.
    return y - (math.erf(y) - x) * math.exp(y * y) * math.sqrt(math.pi) / 2


def _digamma(x: float) -> float:
    """The derivative of the logarithm of gamma: recurrence, then Stirling's series."""
    if x <= 0:
        if x == math.floor(x):
            return math.nan
        return _digamma(1 - x) - math.pi / math.tan(math.pi * x)
    below = 0.0
    while x < 10:
        below += 1 / x
        x += 1
    square = 1 / (x * x)
    series = square * (1 / 12 - square * (1 / 120 - square * (1 / 252 - square / 240)))
    return math.log(x) - 0.5 / x - series - below


erf = _each(math.erf)
digamma = _each(_digamma)
gammaln = _each(math.lgamma)
SLOPE_OF_ERF = 2 / math.sqrt(math.pi)

TABLE = (
    row("erf", erf, lambda g, x: g * SLOPE_OF_ERF * np.exp(-x * x)),
    row("erfinv", _each(_erfinv), lambda g, y: g / SLOPE_OF_ERF * np.exp(y * y)),
    row("gamma", _each(math.gamma), lambda g, x, y: g * y * digamma(x)),
    row("gammaln", gammaln, lambda g, x: g * digamma(x)),
)

for _row in TABLE:
    register(
        Operator(
            name=_row.name,
            shape=one_shape,
            forward=_row.forward,
            backward=_row.backward,
            saved=_row.saved,
        )
    )
