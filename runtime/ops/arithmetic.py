"""Functions of two numbers: one table, three forms.

Each row registers up to three families: two arrays of one shape (`elemwise_add`), two
arrays that broadcast (`broadcast_add`), and an array with a scalar on the right or, if
the function is not symmetric, on the left (`_minus_scalar`, `_rminus_scalar`).

A derivative is a function of the output's gradient `g` and, as its parameters say, of
the operands `a` and `b` and of the output `y`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from runtime.errors import ShapeError
from runtime.graph.registry import Array, Mode, Operator, Shapes, register
from runtime.graph.shapes import is_known, unify
from runtime.ops.derivative import derivative, saved
from runtime.ops.rules import one_shape


def same(g: Any) -> Any:
    """The derivative of a sum: the gradient passes as it is."""
    return g


@dataclass(frozen=True, kw_only=True)
class Arithmetic:
    """One row of the table.

    Attributes:
        function: Of two operands; the output has their dtype.
        slopes: The derivative by each operand; empty if no gradient flows.
        names: Of the form for two arrays of one shape, its JSON name first.
        broadcast: Of the form that broadcasts.
        scalar: Of the form with a scalar on the right.
        reversed: Of the form with a scalar on the left.
    """

    function: np.ufunc
    slopes: tuple[Callable[..., Any], ...] = ()
    names: str
    broadcast: str
    scalar: str
    reversed: str = ""


# fmt: off
TABLE = (
    Arithmetic(function=np.add, slopes=(same, same),
        names="elemwise_add _add _plus _Plus",
        broadcast="broadcast_add broadcast_plus", scalar="_plus_scalar"),
    Arithmetic(function=np.subtract, slopes=(same, lambda g: -g),
        names="elemwise_sub _sub _minus _Minus",
        broadcast="broadcast_sub broadcast_minus",
        scalar="_minus_scalar", reversed="_rminus_scalar"),
    Arithmetic(function=np.multiply,
        slopes=(lambda g, b: g * b, lambda g, a: g * a),
        names="elemwise_mul _mul _Mul",
        broadcast="broadcast_mul", scalar="_mul_scalar"),
    Arithmetic(function=np.divide,
        slopes=(lambda g, b: g / b, lambda g, b, y: -g * y / b),
        names="elemwise_div _div _Div",
        broadcast="broadcast_div", scalar="_div_scalar", reversed="_rdiv_scalar"),
    Arithmetic(function=np.mod,
        slopes=(same, lambda g, a, b: -g * np.floor(a / b)),
        names="_mod _Mod",
        broadcast="broadcast_mod", scalar="_mod_scalar", reversed="_rmod_scalar"),
    Arithmetic(function=np.power,
        slopes=(lambda g, a, b: g * b * np.power(a, b - 1),
                lambda g, a, y: g * y * np.log(a)),
        names="_power _Power",
        broadcast="broadcast_power", scalar="_power_scalar", reversed="_rpower_scalar"),
    Arithmetic(function=np.hypot,
        slopes=(lambda g, a, y: g * a / y, lambda g, b, y: g * b / y),
        names="_hypot",
        broadcast="broadcast_hypot", scalar="_hypot_scalar"),
    Arithmetic(function=np.maximum,
        slopes=(lambda g, a, b: g * (a >= b), lambda g, a, b: g * (a < b)),
        names="_maximum _Maximum",
        broadcast="broadcast_maximum", scalar="_maximum_scalar"),
    Arithmetic(function=np.minimum,
        slopes=(lambda g, a, b: g * (a <= b), lambda g, a, b: g * (a > b)),
        names="_minimum _Minimum",
        broadcast="broadcast_minimum", scalar="_minimum_scalar"),
    # Comparisons give 0 or 1 in the dtype of the operands, and pass no gradient.
    *(
        Arithmetic(function=function, names=f"_{name} {alias}",
            broadcast=f"broadcast_{name}", scalar=f"_{name}_scalar")
        for function, name, alias in (
            (np.equal, "equal", "_Equal"),
            (np.not_equal, "not_equal", "_Not_Equal"),
            (np.greater, "greater", "_Greater"),
            (np.greater_equal, "greater_equal", "_Greater_Equal"),
            (np.less, "lesser", "_Lesser"),
            (np.less_equal, "lesser_equal", "_Lesser_Equal"),
            (np.logical_and, "logical_and", "_Logical_And"),
            (np.logical_or, "logical_or", "_Logical_Or"),
            (np.logical_xor, "logical_xor", "_Logical_Xor"),
        )
    ),
)
# fmt: on


@dataclass(frozen=True)
class Scalar:
    """Attributes of the scalar forms; `is_int` is MXNet's own note, without effect."""

    scalar: float = 1.0
    is_int: bool = True


def _broadcast_shape(p: Any, inputs: Shapes, outputs: Shapes) -> tuple[Shapes, Shapes]:
    left, right = inputs
    if is_known(left) and is_known(right):
        try:
            shape = np.broadcast_shapes(left, right)
        except ValueError:
            raise ShapeError(f"shapes {left} and {right} do not broadcast") from None
        return inputs, [unify(outputs[0], shape, "output")]
    return inputs, outputs


def _reduce_to(shape: tuple[int, ...], grad: Any) -> Any:
    """Sum a gradient over the axes along which its operand was repeated."""
    extra = grad.ndim - len(shape)
    axes = tuple(
        i for i in range(grad.ndim) if i < extra or shape[i - extra] != grad.shape[i]
    )
    return grad.sum(axis=axes, keepdims=True).reshape(shape) if axes else grad


class Pairwise:
    """The two forms that take two arrays."""

    def __init__(self, row: Arithmetic) -> None:
        self.function = row.function
        self.slopes = [derivative(slope) for slope in row.slopes]
        self.saved = saved(self.slopes, "ab")

    def forward(
        self, p: Any, inputs: Sequence[Array], outputs: Sequence[Array], mode: Mode
    ) -> None:
        _compute(self.function, inputs[0], inputs[1], outputs[0])

    def backward(
        self,
        p: Any,
        grads_out: Sequence[Any],
        inputs: Sequence[Any],
        outputs: Sequence[Any],
        grads_in: Sequence[Any],
        mode: Mode,
    ) -> None:
        values = {"a": inputs[0], "b": inputs[1], "y": outputs[0]}
        for slope, grad_in in zip(self.slopes, grads_in, strict=True):
            if grad_in is not None:
                grad = slope(grads_out[0], **values)
                grad_in[...] = _reduce_to(grad_in.shape, grad)


class WithScalar:
    """The two forms that take an array and a scalar, which stands right or left."""

    def __init__(self, row: Arithmetic, scalar_first: bool) -> None:
        self.function = row.function
        self.scalar_first = scalar_first
        self.array, self.constant = ("b", "a") if scalar_first else ("a", "b")
        slopes = row.slopes[scalar_first : scalar_first + 1]
        self.slopes = [derivative(slope) for slope in slopes]
        self.saved = saved(self.slopes, self.array)

    def forward(
        self, p: Scalar, inputs: Sequence[Array], outputs: Sequence[Array], mode: Mode
    ) -> None:
        (data,) = inputs
        pair = (data, _constant(p, data))
        _compute(
            self.function, *(pair[::-1] if self.scalar_first else pair), outputs[0]
        )

    def backward(
        self,
        p: Scalar,
        grads_out: Sequence[Any],
        inputs: Sequence[Any],
        outputs: Sequence[Any],
        grads_in: Sequence[Any],
        mode: Mode,
    ) -> None:
        (slope,) = self.slopes
        values = {
            self.array: inputs[0],
            self.constant: _constant(p, grads_out[0]),
            "y": outputs[0],
        }
        grads_in[0][...] = slope(grads_out[0], **values)


# f(0) = 0: of a CSR matrix they make another one.
KEEP_ZEROS = ("_mul_scalar", "_div_scalar")


def _constant(p: Scalar, like: Array) -> Array:
    """The scalar in the array's dtype, truncated for integers, as MXNet does."""
    return np.asarray(p.scalar).astype(like.dtype)


def _compute(function: np.ufunc, left: Array, right: Array, output: Array) -> None:
    with np.errstate(all="ignore"):
        function(left, right, out=output, casting="unsafe")


def _capitalized(name: str) -> str:
    """MXNet's other name of a scalar form: `_rminus_scalar` is `_RMinusScalar`."""
    words = name.removeprefix("_").split("_")
    first = words[0]
    if first.startswith("r"):
        first = "R" + first[1:].capitalize()
    return "_" + "".join(w[0].upper() + w[1:] for w in (first, *words[1:]))


def _register(row: Arithmetic) -> None:
    pairwise = Pairwise(row)
    for names, shape in ((row.names, one_shape), (row.broadcast, _broadcast_shape)):
        name, *aliases = names.split()
        register(
            Operator(
                name=name,
                aliases=tuple(aliases),
                inputs=("lhs", "rhs"),
                shape=shape,
                forward=pairwise.forward,
                backward=pairwise.backward if row.slopes else None,
                saved=pairwise.saved,
                shares_gradient=shape is one_shape and row.slopes == (same, same),
            )
        )
    for name, scalar_first in ((row.scalar, False), (row.reversed, True)):
        if not name:
            continue
        form = WithScalar(row, scalar_first)
        register(
            Operator(
                name=name,
                aliases=(_capitalized(name),),
                attributes=Scalar,
                shape=one_shape,
                forward=form.forward,
                backward=form.backward if row.slopes else None,
                saved=form.saved,
                shares_gradient=row.slopes[scalar_first:][:1] == (same,),
                csr_inputs=("data",) if name in KEEP_ZEROS else (),
                keeps_zeros=name in KEEP_ZEROS,
            )
        )


for _row in TABLE:
    _register(_row)
