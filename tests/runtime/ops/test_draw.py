"""Operators that draw: their distributions, and that rows draw on their own."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from runtime.errors import OperatorError
from runtime.graph.registry import Mode, get
from runtime.ops.draw import DISTRIBUTIONS
from runtime.ops.random import PhiloxSource
from tests.runtime.ops.recorded import run

SHAPE = (200, 500)
N = 200 * 500
# Parameters, mean and variance.
MOMENTS: dict[str, tuple[dict[str, float], float, float]] = {
    "uniform": ({"low": -1.0, "high": 3.0}, 1.0, 16 / 12),
    "normal": ({"loc": 2.0, "scale": 3.0}, 2.0, 9.0),
    "gamma": ({"alpha": 0.7, "beta": 2.0}, 1.4, 2.8),
    "exponential": ({"lam": 4.0}, 0.25, 1 / 16),
    "poisson": ({"lam": 6.0}, 6.0, 6.0),
    "negative_binomial": ({"k": 3.0, "p": 0.4}, 4.5, 11.25),
    "generalized_negative_binomial": ({"mu": 2.0, "alpha": 0.5}, 2.0, 4.0),
}


def drawn(operator: str, *inputs: Any, **attributes: Any) -> list[Any]:
    return run(operator, *inputs, **attributes).outputs


def check_moments(numbers: Any, mean: float, variance: float) -> None:
    """Within five standard errors; the variance's is guessed from the sample."""
    numbers = np.asarray(numbers, np.float64).ravel()
    assert abs(numbers.mean() - mean) < 5 * np.sqrt(variance / numbers.size)
    squares = (numbers - mean) ** 2
    assert abs(squares.mean() - variance) < 5 * squares.std() / np.sqrt(numbers.size)


def test_every_distribution_has_a_row() -> None:
    assert [kind.name for kind in DISTRIBUTIONS] == list(MOMENTS)


@pytest.mark.parametrize("name", MOMENTS)
def test_moments(name: str) -> None:
    parameters, mean, variance = MOMENTS[name]
    (numbers,) = drawn(f"_random_{name}", shape=SHAPE, **parameters)
    assert numbers.shape == SHAPE
    assert numbers.dtype == np.float32
    check_moments(numbers, mean, variance)


@pytest.mark.parametrize("name", MOMENTS)
def test_as_many_as_another_array(name: str) -> None:
    parameters, mean, variance = MOMENTS[name]
    data = np.zeros(SHAPE, np.float64)
    (numbers,) = drawn(f"_random_{name}_like", data, **parameters)
    assert numbers.dtype == np.float64
    check_moments(numbers, mean, variance)


@pytest.mark.parametrize("name", MOMENTS)
def test_for_each_element_of_the_parameters(name: str) -> None:
    parameters, mean, variance = MOMENTS[name]
    arrays = [np.full((2, 3), value, np.float32) for value in ([*parameters.values()])]
    (numbers,) = drawn(f"_sample_{name}", *arrays, shape=(4000,))
    assert numbers.shape == (2, 3, 4000)
    check_moments(numbers, mean, variance)


class Last(PhiloxSource):
    """All numbers are the last below 1."""

    def uniform(self, shape: tuple[int, ...]) -> Any:
        return np.full(shape, 1 - 2.0**-24, np.float32)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_no_number_is_rounded_up_to_the_end(dtype: str) -> None:
    mode, output = Mode(True, Last(1, 2, 3)), np.empty((2, 3), dtype)
    for low, high in ((0, 1), (1, 3), (-3, -1), (5, 5)):
        operator = get("_random_uniform")
        p = operator.attributes(low=float(low), high=float(high), shape=(2, 3))
        operator.forward(p, [], [output], mode)
        assert (output < high).all() or low == high
        assert (output > low + 0.99 * (high - low)).all() or low == high
        bounds = [np.full(2, bound, dtype) for bound in (low, high)]
        every = np.empty_like(output)
        operator = get("_sample_uniform")
        operator.forward(operator.attributes(shape=(3,)), bounds, [every], mode)
        np.testing.assert_array_equal(every, output)


def test_parameters_that_differ() -> None:
    low, high = np.array([0.0, 10.0]), np.array([1.0, 20.0])
    (numbers,) = drawn("_sample_uniform", low, high, shape=(50, 2), dtype="float64")
    assert numbers.shape == (2, 50, 2)
    assert ((numbers >= low[:, None, None]) & (numbers < high[:, None, None])).all()
    (numbers,) = drawn("_sample_poisson", np.array([0.5, 900.0], np.float32))
    assert numbers[0] < 100 < numbers[1]


@pytest.mark.parametrize(
    "name", [*(f"_random_{n}" for n in MOMENTS), "_random_randint"]
)
def test_a_slice_of_the_batch_draws_what_the_whole_does(name: str) -> None:
    operator = get(name)
    parameters: dict[str, Any] = {"low": 0, "high": 100} if "randint" in name else {}
    if "negative_binomial" in name and "general" not in name:
        parameters = {"p": 0.5}
    p = operator.attributes(shape=(6, 3), **parameters)
    whole, part = np.empty((6, 3)), np.empty((2, 3))
    operator.forward(p, [], [whole], Mode(True, PhiloxSource(1, 2, 3)))
    operator.forward(p, [], [part], Mode(True, PhiloxSource(1, 2, 3, row=4)))
    np.testing.assert_array_equal(whole[4:], part)
    operator.forward(p, [], [part], Mode(True, PhiloxSource(1, 2, 4, row=4)))
    assert (whole[4:] != part).any()


def test_integers() -> None:
    (numbers,) = drawn("_random_randint", low=-2, high=3, shape=SHAPE)
    assert numbers.dtype == np.int32
    values, counts = np.unique(numbers, return_counts=True)
    assert values.tolist() == [-2, -1, 0, 1, 2]
    assert abs(counts - N / 5).max() < 5 * np.sqrt(N / 5)
    (numbers,) = drawn(
        "_random_randint", low=0, high=2**40, shape=(1000,), dtype="int64"
    )
    assert numbers.max() > 2**38
    assert len(np.unique(numbers)) == 1000


def test_classes() -> None:
    p = np.array([[0.1, 0.0, 0.6, 0.3], [0.0, 0.0, 0.0, 1.0]])
    classes, logarithms = drawn("_sample_multinomial", p, shape=(20000,), get_prob=True)
    assert classes.dtype == np.int32
    counts = np.bincount(classes[0], minlength=4) / 20000
    assert abs(counts - p[0]).max() < 5 * 0.5 / np.sqrt(20000)
    assert counts[1] == 0
    assert (classes[1] == 3).all()
    np.testing.assert_allclose(np.exp(logarithms[0]), p[0][classes[0]])
    (alone,) = drawn("_sample_multinomial", p)
    assert alone.shape == (2,)
    assert alone[1] == 3
    (alone,) = drawn("_sample_multinomial", p[1])
    assert alone.tolist() == [3]


def test_the_gradient_of_the_probabilities_of_classes() -> None:
    p = np.array([[0.1, 0.2, 0.3, 0.4], [0.4, 0.3, 0.2, 0.1]])
    classes, logarithms = drawn("_sample_multinomial", p, shape=(5,), get_prob=True)
    operator = get("_sample_multinomial")
    heads = np.arange(10.0).reshape(2, 5)
    gradient = np.full_like(p, 7)
    attributes = operator.attributes(shape=(5,), get_prob=True)
    operator.backward(
        attributes, [None, heads], [p], [classes, None], [gradient], Mode(True)
    )
    step = 1e-6
    for i in np.ndindex(p.shape):
        moved = p.copy()
        moved[i] += step
        found = np.log(np.take_along_axis(moved, classes.astype(int), axis=1))
        slope = (heads * (found - logarithms)).sum() / step
        assert abs(gradient[i] - slope) < 1e-4 * max(1, abs(slope))


def test_shuffled_rows() -> None:
    data = np.arange(300.0).reshape(100, 3)
    (rows,) = drawn("_shuffle", data)
    assert (rows != data).any()
    np.testing.assert_array_equal(np.sort(rows[:, 0]), data[:, 0])
    np.testing.assert_array_equal(rows - rows[:, :1], data - data[:, :1])


@pytest.mark.parametrize(
    ("operator", "attributes", "told"),
    [
        ("_random_normal", {"scale": 0}, r"`scale` must be positive, but loc = 0.0"),
        ("_random_uniform", {"low": 2, "high": 1}, "`low` must not be above"),
        ("_random_gamma", {"alpha": 0}, "`alpha` and `beta` must be positive"),
        ("_random_exponential", {"lam": -1}, "`lam` must be positive, but lam = -1.0"),
        ("_random_randint", {"low": 3, "high": 3}, r"`low` \(=3\) must be below"),
    ],
)
def test_parameters_that_make_no_sense(
    operator: str, attributes: dict[str, Any], told: str
) -> None:
    with pytest.raises(OperatorError, match=told):
        drawn(operator, shape=(2,), **attributes)


def test_parameters_in_arrays_that_make_no_sense() -> None:
    with pytest.raises(OperatorError, match="`lam` must not be negative"):
        drawn("_sample_poisson", np.array([1.0, -1.0]))
