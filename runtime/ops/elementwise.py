"""Functions of one array, element by element: one table.

A row gives MXNet's names, the function and its derivative. A derivative is a function
of the output's gradient `g` and, as its parameters say, of the input `x` and the
output `y`; what it does not name need not be kept for the backward.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import log, pi
from typing import Any

import numpy as np

from runtime.graph.registry import (
    Array,
    Mode,
    Operator,
    Saved,
    register,
)
from runtime.ops.derivative import Derivative, derivative, saved
from runtime.ops.rules import one_shape


@dataclass(frozen=True)
class Elementwise:
    """One row of the table.

    Attributes:
        name: MXNet's name.
        function: Array to array; a NumPy ufunc writes in place.
        slope: The derivative; None if no gradient flows.
    """

    name: str
    function: Callable[[Any], Any]
    slope: Derivative | None = None

    @property
    def saved(self) -> Saved:
        return Saved() if self.slope is None else saved([self.slope], "x")

    def forward(
        self, p: Any, inputs: Sequence[Array], outputs: Sequence[Array], mode: Mode
    ) -> None:
        # What has no value (the logarithm of -1) is nan, and nobody's error.
        with np.errstate(all="ignore"):
            if isinstance(self.function, np.ufunc):
                self.function(inputs[0], out=outputs[0], casting="unsafe")
            else:
                outputs[0][...] = self.function(inputs[0])

    def backward(
        self,
        p: Any,
        grads_out: Sequence[Any],
        inputs: Sequence[Any],
        outputs: Sequence[Any],
        grads_in: Sequence[Any],
        mode: Mode,
    ) -> None:
        assert self.slope is not None
        grads_in[0][...] = self.slope(grads_out[0], x=inputs[0], y=outputs[0])


def row(
    name: str,
    function: Callable[[Any], Any],
    slope: Callable[..., Any] | None = None,
) -> Elementwise:
    """A row; the parameters of `slope` are `g` and any of `x` and `y`."""
    return Elementwise(name, function, derivative(slope) if slope else None)


def sigmoid(x: Array) -> Array:
    """1 / (1 + e^-x), in the dtype of floating-point x."""
    with np.errstate(over="ignore"):  # 1 / inf is the right answer
        y: Array = 1 / (1 + np.exp(-x))
    return y


def _round_half_away(x: Array) -> Array:
    rounded: Array = np.trunc(x + np.copysign(0.5, x))
    return rounded


def _round_half_down(x: Array) -> Array:
    floor, ceiling = np.floor(x), np.ceil(x)
    return np.where(x - floor <= ceiling - x, floor, ceiling)


LN2, LN10 = log(2), log(10)

# fmt: off
TABLE = (
    # Rectifiers and squashing functions.
    row("relu", lambda x: np.maximum(x, 0), lambda g, y: g * (y > 0)),
    row("sigmoid", sigmoid, lambda g, y: g * y * (1 - y)),
    row("tanh", np.tanh, lambda g, y: g * (1 - y * y)),
    row("softsign", lambda x: x / (1 + np.abs(x)),
        lambda g, y: g * np.square(1 - np.abs(y))),
    # Powers and roots.
    row("negative", np.negative, lambda g: -g),
    row("reciprocal", np.reciprocal, lambda g, y: -g * y * y),
    row("square", np.square, lambda g, x: 2 * g * x),
    row("sqrt", np.sqrt, lambda g, y: g / (2 * y)),
    row("rsqrt", lambda x: 1 / np.sqrt(x), lambda g, x, y: -g * y / (2 * x)),
    row("cbrt", np.cbrt, lambda g, y: g / (3 * y * y)),
    row("rcbrt", lambda x: 1 / np.cbrt(x), lambda g, x, y: -g * y / (3 * x)),
    # Exponentials and logarithms.
    row("exp", np.exp, lambda g, y: g * y),
    row("expm1", np.expm1, lambda g, y: g * (y + 1)),
    row("log", np.log, lambda g, x: g / x),
    row("log1p", np.log1p, lambda g, x: g / (1 + x)),
    row("log2", np.log2, lambda g, x: g / (x * LN2)),
    row("log10", np.log10, lambda g, x: g / (x * LN10)),
    # Angles.
    row("sin", np.sin, lambda g, x: g * np.cos(x)),
    row("cos", np.cos, lambda g, x: -g * np.sin(x)),
    row("tan", np.tan, lambda g, y: g * (1 + y * y)),
    row("arcsin", np.arcsin, lambda g, x: g / np.sqrt(1 - x * x)),
    row("arccos", np.arccos, lambda g, x: -g / np.sqrt(1 - x * x)),
    row("arctan", np.arctan, lambda g, x: g / (1 + x * x)),
    row("sinh", np.sinh, lambda g, x: g * np.cosh(x)),
    row("cosh", np.cosh, lambda g, x: g * np.sinh(x)),
    row("arcsinh", np.arcsinh, lambda g, x: g / np.sqrt(x * x + 1)),
    row("arccosh", np.arccosh, lambda g, x: g / np.sqrt(x * x - 1)),
    row("arctanh", np.arctanh, lambda g, x: g / (1 - x * x)),
    row("degrees", np.degrees, lambda g: g * (180 / pi)),
    row("radians", np.radians, lambda g: g * (pi / 180)),
    # Steps: the slope is zero wherever there is one.
    row("abs", np.abs, lambda g, x: g * np.sign(x)),
    row("sign", np.sign, lambda g: g * 0),
    row("floor", np.floor),
    row("ceil", np.ceil),
    row("trunc", np.trunc),
    row("fix", np.trunc),
    row("round", _round_half_away),
    row("rint", _round_half_down),
    row("logical_not", np.logical_not),
    row("zeros_like", np.zeros_like),
    row("ones_like", np.ones_like),
)


# f(0) = 0: those that make a CSR matrix of a CSR matrix in MXNet too.
KEEP_ZEROS = (
    "relu", "tanh", "negative", "square", "sqrt", "cbrt", "expm1", "log1p", "sin",
    "tan", "arcsin", "arctan", "sinh", "arcsinh", "arctanh", "degrees", "radians",
    "abs", "sign", "floor", "ceil", "trunc", "fix", "round", "rint",
)
# fmt: on

for _row in TABLE:
    register(
        Operator(
            name=_row.name,
            shape=one_shape,
            forward=_row.forward,
            backward=None if _row.slope is None else _row.backward,
            saved=_row.saved,
            csr_inputs=("data",) if _row.name in KEEP_ZEROS else (),
            keeps_zeros=_row.name in KEEP_ZEROS,
        )
    )
