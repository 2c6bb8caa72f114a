from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import numpy as np
import pytest

import asyncmod as mx
import asyncmod.symbol as sym
from asyncmod.errors import ArgumentTypeError

X, Y = sym.Variable("x"), sym.Variable("y")

CASES: list[tuple[Callable[[], sym.Symbol], str, str, str | None]] = [
    (lambda: X + Y, "elemwise_add", "_plus0", None),
    (lambda: X - Y, "elemwise_sub", "_minus0", None),
    (lambda: X * Y, "elemwise_mul", "_mul0", None),
    (lambda: X / Y, "elemwise_div", "_div0", None),
    (lambda: X % Y, "_mod", "_mod0", None),
    (lambda: X**Y, "_power", "_power0", None),
    (lambda: X > Y, "_greater", "_greater0", None),
    (lambda: X >= Y, "_greater_equal", "_greater_equal0", None),
    (lambda: X < Y, "_lesser", "_lesser0", None),
    (lambda: X <= Y, "_lesser_equal", "_lesser_equal0", None),
    (lambda: X == Y, "_equal", "_equal0", None),
    (lambda: X != Y, "_not_equal", "_not_equal0", None),
    (lambda: X + 2, "_plus_scalar", "_plusscalar0", "2"),
    (lambda: 2 + X, "_plus_scalar", "_plusscalar0", "2"),
    (lambda: X - 0.5, "_minus_scalar", "_minusscalar0", "0.5"),
    (lambda: 1.0 - X, "_rminus_scalar", "_rminusscalar0", "1.0"),
    (lambda: 3 * X, "_mul_scalar", "_mulscalar0", "3"),
    (lambda: X / 4, "_div_scalar", "_divscalar0", "4"),
    (lambda: 4 / X, "_rdiv_scalar", "_rdivscalar0", "4"),
    (lambda: X % 4, "_mod_scalar", "_modscalar0", "4"),
    (lambda: 4 % X, "_rmod_scalar", "_rmodscalar0", "4"),
    (lambda: X**2, "_power_scalar", "_powerscalar0", "2"),
    (lambda: 2**X, "_rpower_scalar", "_rpowerscalar0", "2"),
    (lambda: -X, "_mul_scalar", "_mulscalar0", "-1.0"),
    (lambda: X > 1, "_greater_scalar", "_greaterscalar0", "1"),
    (lambda: 1 < X, "_greater_scalar", "_greaterscalar0", "1"),  # noqa: SIM300
    (lambda: X >= 1, "_greater_equal_scalar", "_greaterequalscalar0", "1"),
    (lambda: X < 1, "_lesser_scalar", "_lesserscalar0", "1"),
    (lambda: X <= 1, "_lesser_equal_scalar", "_lesserequalscalar0", "1"),
    (lambda: X == 1, "_equal_scalar", "_equalscalar0", "1"),  # type: ignore[return-value]
    (lambda: X != 1, "_not_equal_scalar", "_notequalscalar0", "1"),  # type: ignore[return-value]
    (lambda: X * np.float32(0.1), "_mul_scalar", "_mulscalar0", "0.1"),
    (lambda: np.float32(0.1) * X, "_mul_scalar", "_mulscalar0", "0.1"),
    (lambda: np.int64(3) - X, "_rminus_scalar", "_rminusscalar0", "3"),
    (lambda: sym.maximum(X, Y), "_maximum", "_maximum0", None),
    (lambda: sym.maximum(2, X), "_maximum_scalar", "_maximumscalar0", "2"),
    (lambda: sym.minimum(X, 2), "_minimum_scalar", "_minimumscalar0", "2"),
    (lambda: sym.hypot(X, Y), "_hypot", "_hypot0", None),
    (lambda: sym.pow(2, X), "_rpower_scalar", "_rpowerscalar0", "2"),
    (lambda: sym.pow(X, 2), "_power_scalar", "_powerscalar0", "2"),
]


@pytest.mark.parametrize(("make", "operator", "name", "scalar"), CASES)
def test_operation(
    make: Callable[[], sym.Symbol], operator: str, name: str, scalar: str | None
) -> None:
    with sym.NameManager():
        net = make()
    node = net.graph.nodes[-1]
    assert node.operator is not None
    assert (node.operator.name, node.name) == (operator, name)
    assert net.attr("scalar") == scalar


def test_two_symbols_keep_their_order() -> None:
    assert (X - Y).list_arguments() == ["x", "y"]
    assert (Y - X).list_arguments() == ["y", "x"]
    assert sym.power(Y, X).list_arguments() == ["y", "x"]


@pytest.mark.parametrize("other", [None, "2", np.zeros(3), 1j])
def test_other_operands_are_refused(other: object) -> None:
    with pytest.raises(TypeError, match="operand"):
        X + other
    with pytest.raises(TypeError, match="operand"):
        other - X  # type: ignore[operator]
    with pytest.raises(ArgumentTypeError, match="a symbol and a number"):
        sym.maximum(X, other)  # type: ignore[arg-type]


def test_comparison_with_something_else_is_false() -> None:
    assert (X == None) is False  # noqa: E711  # type: ignore[comparison-overlap]


def test_constants() -> None:
    zeros = sym.zeros((0, 3), name="state", __layout__="NC")
    assert zeros.list_attr() == {
        "shape": "(0, 3)",
        "dtype": "float32",
        "__layout__": "NC",
    }
    assert sym.ones(4, dtype="float64").infer_shape() == ([], [(4,)], [])
    assert sym.full((2,), 3).attr("value") == "3.0"


async def test_ranges() -> None:
    async def numbers(*args: float, **options: Any) -> list[float]:
        async with mx.bind(sym.arange(*args, **options), {}) as executor:
            (result,) = await executor.forward()
            return cast("list[float]", result.tolist())

    assert await numbers(3) == [0, 1, 2]
    assert await numbers(1, 2, 0.5, repeat=2) == [1, 1, 1.5, 1.5]
    assert sym.arange(2, dtype="int32", name="r").infer_type()[1] == [np.int32]
    sum_ = X + sym.arange(5, infer_range=True, name="r")
    assert sum_.infer_shape(x=(4,))[1] == [(4,)]
