"""Functions that Python's operators do not cover: maximum, zeros and their like."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import DTypeLike

from asyncmod.errors import ArgumentTypeError
from asyncmod.shapes import ShapeLike, as_shape
from asyncmod.symbol.arithmetic import Method, binary, reflected
from asyncmod.symbol.operators import operator_function
from asyncmod.symbol.symbol import Symbol

Operand = Symbol | float


def maximum(left: Operand, right: Operand) -> Symbol:
    """The larger of both, elementwise; one of them may be a number."""
    method = binary("_maximum", "_maximum_scalar", "_maximum")
    return _apply(method, method, left, right)


def minimum(left: Operand, right: Operand) -> Symbol:
    """The smaller of both, elementwise; one of them may be a number."""
    method = binary("_minimum", "_minimum_scalar", "_minimum")
    return _apply(method, method, left, right)


def hypot(left: Operand, right: Operand) -> Symbol:
    """The root of the sum of both squares; one of them may be a number."""
    method = binary("_hypot", "_hypot_scalar", "_hypot")
    return _apply(method, method, left, right)


def power(base: Operand, exp: Operand) -> Symbol:
    """`base ** exp`, elementwise; one of them may be a number."""
    method = binary("_power", "_power_scalar", "_power")
    return _apply(method, reflected("_rpower_scalar", "_rpowerscalar"), base, exp)


pow = power


def zeros(shape: ShapeLike, dtype: DTypeLike = "float32", **kwargs: object) -> Symbol:
    """An array of zeros; sizes of 0 are inferred. `kwargs` as for operators."""
    return operator_function("_zeros")(shape=as_shape(shape), dtype=dtype, **kwargs)


def ones(shape: ShapeLike, dtype: DTypeLike = "float32", **kwargs: object) -> Symbol:
    """An array of ones; sizes of 0 are inferred. `kwargs` as for operators."""
    return operator_function("_ones")(shape=as_shape(shape), dtype=dtype, **kwargs)


def full(
    shape: ShapeLike,
    val: float,
    dtype: DTypeLike = "float32",
    **kwargs: object,
) -> Symbol:
    """An array of one value; sizes of 0 are inferred. `kwargs` as for operators."""
    return operator_function("_full")(
        shape=as_shape(shape), dtype=dtype, value=float(val), **kwargs
    )


def arange(
    start: float,
    stop: float | None = None,
    step: float = 1.0,
    repeat: int = 1,
    infer_range: bool = False,
    dtype: DTypeLike = "float32",
    **kwargs: object,
) -> Symbol:
    """Numbers from `start` up to `stop`, each `repeat` times; see operator `_arange`.

    With `infer_range` there are as many as whoever uses them needs.
    """
    return operator_function("_arange")(
        start=start,
        stop=stop,
        step=step,
        repeat=repeat,
        infer_range=infer_range,
        dtype=dtype,
        **kwargs,
    )


def linspace(
    start: float,
    stop: float,
    num: int,
    endpoint: bool = True,
    dtype: DTypeLike = "float32",
    **kwargs: object,
) -> Symbol:
    """`num` numbers at equal distances from `start` to `stop`."""
    return operator_function("_linspace")(
        start=start, stop=stop, num=num, endpoint=endpoint, dtype=dtype, **kwargs
    )


def eye(
    N: int, M: int = 0, k: int = 0, dtype: DTypeLike = "float32", **kwargs: object
) -> Symbol:
    """Ones on diagonal `k` of `N` rows and `M` columns, zeros elsewhere."""
    return operator_function("_eye")(N=N, M=M, k=k, dtype=dtype, **kwargs)


def split_v2(
    ary: Symbol,
    indices_or_sections: int | np.integer | Sequence[int],
    axis: int = 0,
    squeeze_axis: bool = False,
    **kwargs: object,
) -> Symbol:
    """An array cut into equal parts, or where further parts begin."""
    if isinstance(indices_or_sections, int | np.integer):
        indices: tuple[int, ...] = ()
        sections = int(indices_or_sections)
    else:
        indices, sections = (0, *indices_or_sections), 0
    return operator_function("_split_v2")(
        ary,
        indices=indices,
        axis=axis,
        squeeze_axis=squeeze_axis,
        sections=sections,
        **kwargs,
    )


def histogram(
    a: Symbol,
    bins: int | Symbol = 10,
    range: tuple[float, float] | None = None,
    **kwargs: object,
) -> Symbol:
    """How many elements lie in each interval, and the intervals' ends.

    Args:
        a: The data.
        bins: How many intervals of one width, or a symbol of their ends.
        range: Where the first of so many begins and the last one ends.
        **kwargs: As for operators.
    """
    make = operator_function("_histogram")
    if isinstance(bins, Symbol):
        return make(data=a, bins=bins, **kwargs)
    if range is None:
        raise ArgumentTypeError(
            f"mx.sym.histogram() needs `range` with a number of `bins` (={bins}): the "
            "two ends"
        )
    return make(data=a, bin_cnt=bins, range=range, **kwargs)


def _apply(method: Method, swapped: Method, left: Operand, right: Operand) -> Symbol:
    if isinstance(left, Symbol):
        result = method(left, right)
    elif isinstance(right, Symbol):
        result = swapped(right, left)
    else:
        result = NotImplemented
    if result is NotImplemented:
        raise ArgumentTypeError(
            f"two symbols, or a symbol and a number, are needed; not {left!r} and "
            f"{right!r}"
        )
    return result
