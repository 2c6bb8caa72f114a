"""Activations and the other kernels over strided runs, against NumPy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.kernels.cpu.table import WithNumber
from tests.runtime.kernels.cpu.activations import activate, gradient
from tests.runtime.kernels.cpu.conftest import Kernels, Memory

SHAPE = st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(1, 70))
fast = settings(max_examples=60, deadline=None)
CODES = range(6)


GAP = 3  # elements between two runs


def strided(memory, random, shape, scale=3.0):
    """A view whose innermost run is contiguous, with 42s between the runs."""
    outer, middle, inner = shape
    whole = memory.array(random.normal(size=(outer, middle, inner + GAP)) * scale)
    whole[..., inner:] = 42
    return whole[..., :inner]


def assert_gaps_intact(x):
    """What lies between the runs of a view must not have been written."""
    shape = (*x.shape[:2], x.shape[2] + GAP)
    whole = np.lib.stride_tricks.as_strided(x, shape, x.strides)
    assert (whole[..., x.shape[2] :] == 42).all()


def operand(name, x):
    """The three fields of a strided operand."""
    return {
        name: x,
        f"{name}_outer": x.strides[0] // 4,
        f"{name}_middle": x.strides[1] // 4,
    }


def counts(shape):
    """The fields of the loop."""
    return dict(zip(("outer", "middle", "inner"), shape, strict=True))


@pytest.mark.parametrize("epilogue", CODES)
@fast
@given(shape=SHAPE, in_place=st.booleans())
def test_activation(kernels: Kernels, shape, epilogue, in_place):
    memory, random = Memory(), np.random.default_rng(sum(shape))
    x = strided(memory, random, shape)
    y = x if in_place else strided(memory, random, shape)
    expected = activate(x, epilogue)
    kernels(
        "activation",
        **operand("x", x),
        **operand("y", y),
        **counts(shape),
        epilogue=epilogue,
    )
    np.testing.assert_allclose(y, expected, rtol=1e-6, atol=1e-30)
    memory.check()
    assert_gaps_intact(y)


@pytest.mark.parametrize("epilogue", CODES)
def test_activation_over_the_whole_range(kernels, memory, epilogue):
    magnitudes = np.geomspace(1e-30, 3e38, 20001, dtype=np.float32)
    x = memory.array([np.concatenate([-magnitudes[::-1], [0], magnitudes])])
    y = memory.nans(*x.shape)
    shape = (1, 1, x.size)
    kernels(
        "activation",
        **operand("x", x[None]),
        **operand("y", y[None]),
        **counts(shape),
        epilogue=epilogue,
    )
    # exp(-87.3) is the smallest result that is not cut to zero.
    np.testing.assert_allclose(y, activate(x, epilogue), rtol=1e-6, atol=2e-38)


@pytest.mark.parametrize("epilogue", CODES)
def test_activation_of_nan_and_infinity(kernels, memory, epilogue):
    x = memory.array([[[np.nan, np.inf, -np.inf]]])
    y = memory.zeros(1, 1, 3)
    kernels(
        "activation",
        **operand("x", x),
        **operand("y", y),
        **counts(x.shape),
        epilogue=epilogue,
    )
    np.testing.assert_array_equal(y, activate(x, epilogue).astype(np.float32))


@pytest.mark.parametrize("epilogue", CODES)
@fast
@given(shape=SHAPE)
def test_activation_tail_equals_body(kernels: Kernels, shape, epilogue):
    memory, random = Memory(), np.random.default_rng(sum(shape))
    x = strided(memory, random, shape)
    y = strided(memory, random, shape)
    kernels(
        "activation",
        **operand("x", x),
        **operand("y", y),
        **counts(shape),
        epilogue=epilogue,
    )
    long = memory.array(np.repeat(x[..., -1:], 64, axis=-1))
    kernels(
        "activation",
        **operand("x", long),
        **operand("y", long),
        **counts(long.shape),
        epilogue=epilogue,
    )
    np.testing.assert_array_equal(y[..., -1], long[..., 0])


@pytest.mark.parametrize("epilogue", CODES)
@fast
@given(shape=SHAPE)
def test_activation_backward(kernels: Kernels, shape, epilogue):
    memory, random = Memory(), np.random.default_rng(sum(shape))
    dy = strided(memory, random, shape)
    y = strided(memory, random, shape)
    dx = strided(memory, random, shape)
    y[...] = activate(y, epilogue)
    y[0, 0, 0] = activate(np.float32(1e-6), epilogue)
    expected = dy * gradient(y, epilogue)
    kernels(
        "activation_backward",
        **operand("dy", dy),
        **operand("y", y),
        **operand("dx", dx),
        **counts(shape),
        epilogue=epilogue,
    )
    np.testing.assert_allclose(dx, expected, rtol=2e-6, atol=1e-7)
    assert_gaps_intact(dx)
    memory.check()


@fast
@given(shape=SHAPE)
def test_add_multiply_and_copy(kernels: Kernels, shape):
    memory, random = Memory(), np.random.default_rng(sum(shape))
    a, b, y, z = (strided(memory, random, shape) for _ in range(4))
    for kernel, expected in (("add", a + b), ("multiply", a * b)):
        operands = operand("a", a) | operand("b", b) | operand("y", y)
        kernels(kernel, **operands, **counts(shape))
        np.testing.assert_array_equal(y, expected)
    kernels("copy", **operand("x", a), **operand("y", z), **counts(shape))
    np.testing.assert_array_equal(z, a)
    assert_gaps_intact(y)
    assert_gaps_intact(z)
    memory.check()


@pytest.mark.parametrize("kind", WithNumber)
@fast
@given(n=st.integers(1, 70))
def test_with_number(kernels: Kernels, n, kind):
    memory, random = Memory(), np.random.default_rng(n)
    x, y = memory.array(random.normal(size=n)), memory.nans(n)
    kernels("with_number", x=x, y=y, n=n, kind=int(kind), number=0.1)
    number = np.float32(0.1)
    expected = {
        WithNumber.PLUS: x + number,
        WithNumber.MINUS: x - number,
        WithNumber.FROM: number - x,
        WithNumber.TIMES: x * number,
    }
    np.testing.assert_array_equal(y, expected[kind])
    memory.check()


@fast
@given(n=st.integers(1, 70))
def test_fill_and_scale_add(kernels: Kernels, n):
    memory, random = Memory(), np.random.default_rng(n)
    x, y = (memory.array(random.normal(size=n)) for _ in range(2))
    expected = y + np.float32(0.3) * x
    kernels("scale_add", x=x, y=y, n=n, alpha=0.3)
    np.testing.assert_allclose(y, expected, rtol=1e-6, atol=1e-6)
    kernels("fill", y=y, bytes=4 * n)
    np.testing.assert_array_equal(y, np.zeros(n))
    kernels("set_value", y=y, count=n, value=0.1)
    np.testing.assert_array_equal(y, np.full(n, np.float32(0.1)))
    memory.check()
