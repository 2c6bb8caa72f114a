"""Operators on arrays: `mx.nd.softmax(x)`, and the same as members."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import asyncmod as mx
from asyncmod.errors import ArgumentError, ArgumentTypeError
from asyncmod.symbol.fluent import METHODS
from runtime.errors import OperatorError, ShapeError

nd = mx.nd
A = np.array([[1, -2, 3], [4, 5, -6]], np.float32)


@pytest.mark.parametrize(
    ("compute", "expected"),
    [
        (lambda a: nd.sum(a, axis=1), A.sum(1)),
        (lambda a: nd.argmax(a, axis=1), np.float32([2, 1])),
        (lambda a: nd.dot(a, a.T), A @ A.T),
        (lambda a: nd.dot(a, a, transpose_b=True), A @ A.T),
        (lambda a: nd.relu(a), A.clip(0)),
        (lambda a: nd.Activation(a, act_type="relu"), A.clip(0)),
        (lambda a: nd.clip(a, -1, 2), A.clip(-1, 2)),
        (lambda a: nd.clip(data=a, a_min=-1, a_max=2), A.clip(-1, 2)),
        (lambda a: nd.broadcast_add(a, nd.ones((2, 1))), A + 1),
        (lambda a: nd.where(a > 0, a, -a), abs(A)),
        (lambda a: nd.add_n(a, a, a), 3 * A),
        (lambda a: nd.one_hot(nd.array([2, 0]), 3), np.eye(3)[[2, 0]]),
        (lambda a: nd.expand_dims(a, axis=0), A[None]),
        (lambda a: nd.Flatten(a.reshape((2, 3, 1))), A),
        (lambda a: nd.maximum(a, 2), np.maximum(A, 2)),
        (lambda a: nd.maximum(2, a), np.maximum(A, 2)),
        (lambda a: nd.add(a, a[:1]), A + A[:1]),
        (lambda a: nd.subtract(1, a), 1 - A),
        (lambda a: nd.greater(a, 1), (A > 1).astype(np.float32)),
        (lambda a: nd.equal(a, a), np.ones((2, 3), np.float32)),
        (lambda a: nd.modulo(a, 4), A % 4),
        (lambda a: nd.FullyConnected(a, a, no_bias=True, num_hidden=2), A @ A.T),
        (lambda a: nd.Dropout(a, p=0.5), A),
        (lambda a: a.slice_axis(axis=1, begin=0, end=2), A[:, :2]),
        (lambda a: a.square(), A**2),
        (lambda a: a.expand_dims(1), A[:, None]),
        (lambda a: a.astype("float64").softmax(axis=0).sum(axis=0), np.ones(3)),
        (lambda a: a.norm(), np.sqrt((A**2).sum(keepdims=True))[0]),
        (lambda a: nd.norm(a.max()), np.float32([5])),
    ],
)
def test_values(compute: Callable[[Any], Any], expected: Any) -> None:
    result = compute(nd.array(A))
    assert isinstance(result, nd.NDArray)
    np.testing.assert_allclose(result, expected, rtol=1e-6)


def test_several_outputs_and_places_for_them() -> None:
    first, second = nd.split(nd.array(A.T), num_outputs=3, axis=0)[:2]
    assert first.tolist() == [[1, 4]]
    assert second.tolist() == [[-2, 5]]
    place = nd.zeros((2, 3))
    assert nd.square(nd.array(A), out=place) is place
    assert place.tolist() == (A**2).tolist()
    places = [nd.zeros((2, 1), dtype="int32") for _ in range(3)]
    assert nd.split(nd.array(A), num_outputs=3, axis=1, out=places) == places
    assert places[1].tolist() == [[-2], [5]]
    with pytest.raises(ArgumentError, match="2 arrays for 3 outputs"):
        nd.split(nd.array(A), num_outputs=3, axis=1, out=places[:2])


def test_every_member_of_a_symbol_is_one_of_an_array() -> None:
    """Those that NumPy has are NumPy's."""
    array = nd.array(A)
    for name in METHODS:
        assert callable(getattr(array, name)), name


def test_names_of_symbols_do_not_depend_on_arrays() -> None:
    with mx.sym.NameManager():
        nd.softmax(nd.array(A))
        assert mx.sym.softmax(mx.sym.Variable("x")).name == "softmax0"


@pytest.mark.parametrize(
    ("call", "error", "told"),
    [
        (lambda a: nd.sofmax(a), AttributeError, "`sofmax`.*mean softmax"),
        (lambda a: nd.dot(a, a), ShapeError, "dot"),
        (lambda a: nd.clip(a, 1), OperatorError, "a_max"),
        (lambda a: nd.Convolution(a), OperatorError, "kernel"),
        (lambda a: nd.FullyConnected(a, num_hidden=2), ArgumentError, "none for: "),
        (lambda a: nd.contrib.quantize, AttributeError, "mx.nd.contrib.*INT8"),
        (lambda a: nd.Custom(a), OperatorError, "op_type"),
        (lambda a: a.attach_grad(), AttributeError, "gradients come from mx.Module"),
        (lambda a: a.nothing, AttributeError, "has no `nothing`"),
        (lambda a: nd.__nothing__, AttributeError, "__nothing__"),
        (
            lambda a: nd.softmax([1, 2]),
            ArgumentTypeError,
            r"takes arrays, not \[1, 2\]: make one with mx\.nd\.array",
        ),
    ],
)
def test_errors(call: Callable[[Any], Any], error: type[Exception], told: str) -> None:
    with pytest.raises(error, match=told):
        call(nd.array(A))


def test_contributed_operators() -> None:
    image = nd.array([[[[1.0, 3.0], [5.0, 7.0]]]])
    assert nd.contrib.AdaptiveAvgPooling2D(image, output_size=1).asscalar() == 4
    assert nd.contrib.ctc_loss(nd.zeros((1, 1, 2)), nd.array([[1]])).shape == (1,)


def test_help() -> None:
    assert nd.softmax.__name__ == "softmax"
    assert "`softmax`" in nd.softmax.__doc__
    assert {"array", "softmax", "add", "random"} < set(dir(nd))


def test_random_arrays() -> None:
    mx.random.seed(3)
    drawn = nd.random.uniform(-1, 1, shape=(2, 3), ctx=mx.cpu(0))
    mx.random.seed(3)
    place = nd.zeros((2, 3))
    assert mx.rnd.uniform(-1, 1, out=place).tolist() == drawn.tolist()
    assert place.tolist() == drawn.tolist()
    assert nd.random.normal(5, 0, shape=4).tolist() == [5] * 4
    assert nd.random_normal is nd.normal is nd.random.normal
    assert nd.random_uniform is nd.uniform is nd.random.uniform
    assert nd.random_gamma is nd.random.gamma
    assert nd.random.randint(2, 3, shape=2, dtype="int64").tolist() == [2, 2]
