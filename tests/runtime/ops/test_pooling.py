"""What the golden cases of pooling leave open."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.golden.pooling_v1_cases import CASES
from tests.runtime.ops.interpreter import apply, backward
from tests.runtime.ops.recorded import check

WINDOW: Any = {"kernel": "(2, 2)", "stride": "(1, 1)"}


def test_the_first_of_equal_maxima_takes_the_gradient() -> None:
    done = apply("Pooling", np.ones((1, 1, 3, 3)), **WINDOW)
    grads = backward(done, [np.array([[[[1.0, 2], [3, 4]]]])], {"x0"})
    assert grads["x0"].tolist() == [[[[1, 2, 0], [3, 4, 0], [0, 0, 0]]]]


@pytest.mark.parametrize(
    ("kind", "outside"),
    [("max", np.finfo(np.float32).min), ("avg", 0), ("sum", 0), ("lp", 0)],
)
def test_a_window_that_lies_in_the_padding_alone(kind: str, outside: float) -> None:
    done = apply(
        "Pooling",
        np.full((1, 1, 1), 3, np.float32),
        kernel="(2,)",
        stride="(2,)",
        pad="(1,)",
        pooling_convention="full",
        count_include_pad="False",
        pool_type=kind,
        p_value="1",
    )
    assert done.outputs[0].tolist() == [[[3, float(outside)]]]
    grads = backward(done, [np.ones((1, 1, 2), np.float32)], {"x0"})
    assert grads["x0"].tolist() == [[[1]]]


@pytest.mark.parametrize("power", ["1", "2", "3"])
def test_windows_of_zeros_have_no_slope(power: str) -> None:
    attributes: Any = WINDOW | {"pool_type": "lp", "p_value": power}
    done = apply("Pooling", np.zeros((1, 1, 2, 2)), **attributes)
    grads = backward(done, [np.ones((1, 1, 1, 1))], {"x0"})
    # The first power is a plain sum, which has one.
    assert grads["x0"].tolist() == [[[[power == "1"] * 2] * 2]]


@pytest.mark.parametrize("kind", ["max", "avg", "sum", "lp"])
@pytest.mark.parametrize("size", [(5,), (4, 3), (2, 3, 4)])
def test_global_is_one_window_over_all(kind: str, size: tuple[int, ...]) -> None:
    data = np.random.default_rng(0).uniform(0.5, 1, (2, 3, *size))
    attributes: Any = {"pool_type": kind, "p_value": "2"}
    whole = apply("Pooling", data, global_pool="True", kernel="(9,)", **attributes)
    window = apply("Pooling", data, kernel=str(size), **attributes)
    np.testing.assert_allclose(whole.outputs[0], window.outputs[0])
    function: Any = {
        "max": np.max,
        "avg": np.mean,
        "sum": np.sum,
        "lp": lambda x, axis: np.sqrt(np.square(x).sum(axis)),
    }[kind]
    expected = function(data.reshape(2, 3, -1), axis=2)
    np.testing.assert_allclose(whole.outputs[0].reshape(2, 3), expected)
    head = [np.ones_like(whole.outputs[0])]
    np.testing.assert_allclose(
        backward(whole, head, {"x0"})["x0"], backward(window, head, {"x0"})["x0"]
    )


def test_same_convention_in_one_dimension() -> None:
    data = np.arange(7.0).reshape(1, 1, 7)
    attributes: Any = {"kernel": "(3,)", "stride": "(2,)", "pooling_convention": "same"}
    (output,) = apply("Pooling", data, **attributes).outputs
    assert output.tolist() == [[[2, 4, 6, 6]]]
    (output,) = apply("Pooling", data, pool_type="avg", **attributes).outputs
    assert output.tolist() == [[[1, 3, 5, 6]]]


@pytest.mark.parametrize("name", CASES)
def test_the_older_pooling_as_in_mxnet(name: str) -> None:
    """MXNet divides in single precision."""
    check("pooling_v1.npz", name, CASES[name], outputs=1e-7, gradients=1e-7)
