"""Softmax and the gradient of SoftmaxOutput against NumPy."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.runtime.kernels.cpu.conftest import Kernels, Memory

fast = settings(max_examples=60, deadline=None)
BAD_LABELS = [np.nan, -1, 1e9, np.inf, -np.inf, 3e38]


def softmax(x):
    """Softmax over the last axis in float64."""
    e = np.exp(x - x.max(axis=-1, keepdims=True).astype(np.float64))
    return e / e.sum(axis=-1, keepdims=True)


@fast
@given(
    rows=st.integers(1, 5), classes=st.integers(1, 70), scale=st.sampled_from([1, 40])
)
def test_softmax(kernels: Kernels, rows, classes, scale):
    memory, random = Memory(), np.random.default_rng(rows * classes)
    x = memory.array(random.normal(size=(rows, classes)) * scale - 5)
    y = memory.nans(rows, classes)
    kernels("softmax", x=x, y=y, rows=rows, classes=classes)
    np.testing.assert_allclose(y, softmax(x), rtol=4e-6, atol=1e-37)
    memory.check()


def test_softmax_of_nan_and_infinity(kernels, memory):
    x = memory.array([[0, np.nan, 1], [0, -np.inf, 0], [5, 5, 5]])
    y = memory.zeros(3, 3)
    kernels("softmax", x=x, y=y, rows=3, classes=3)
    assert np.isnan(y[0]).all()
    np.testing.assert_array_equal(y[1], [0.5, 0, 0.5])
    np.testing.assert_allclose(y[2], 1 / 3, rtol=1e-6)


def expected_gradient(y, label, *, scale, ignore, use_ignore, alpha, mode, batch):
    """Gradient of SoftmaxOutput, as the operator's page states it."""
    classes = y.shape[1]
    others = alpha / max(classes - 1, 1)
    result = y.astype(np.float64) - others
    valid = 0
    for row, value in enumerate(label.tolist()):
        number = int(value) if np.isfinite(value) else None
        valid += number != int(ignore)
        if use_ignore and number == int(ignore):
            result[row] = 0
        elif number is not None and 0 <= number < classes:
            result[row, number] = y[row, number] - 1 + alpha
    divisor = {0: 1, 1: batch, 2: max(valid, 1)}[mode]
    return result * scale / divisor


@pytest.mark.parametrize("mode", [0, 1, 2])
@pytest.mark.parametrize(
    ("use_ignore", "alpha"), [*itertools.product([0, 1], [0, 0.1])]
)
@fast
@given(classes=st.integers(1, 40), in_place=st.booleans(), add=st.booleans())
def test_softmax_output_backward(
    kernels: Kernels, classes, mode, use_ignore, alpha, in_place, add
):
    memory, random = Memory(), np.random.default_rng(classes)
    labels = [0, classes - 1, classes, 1.5, 2, *BAD_LABELS]
    y = memory.array(softmax(random.normal(size=(len(labels), classes))))
    label = memory.array(labels)
    dx = y if in_place else memory.nans(*y.shape)
    expected = expected_gradient(
        y,
        label,
        scale=0.7,
        ignore=2.0,
        use_ignore=use_ignore,
        alpha=alpha,
        mode=mode,
        batch=4,
    )
    before = random.normal(size=classes)
    sums = memory.array(before if add else np.full(classes, np.nan))
    kernels(
        "softmax_output_backward",
        y=y,
        label=label,
        dx=dx,
        dx_row=classes,
        rows=len(labels),
        classes=classes,
        first=0,
        count=classes,
        sums=sums,
        accumulate=int(add),
        grad_scale=0.7,
        use_ignore=use_ignore,
        ignore_label=2.0,
        smooth_alpha=alpha,
        normalization=mode,
        batch=4,
    )
    np.testing.assert_allclose(dx, expected, rtol=2e-6, atol=1e-7)
    total = expected.sum(axis=0) + before * add
    np.testing.assert_allclose(sums, total, rtol=2e-6, atol=1e-6)
    memory.check()


@fast
@given(st.integers(2, 60), st.integers(0, 59), st.integers(1, 60), st.integers(0, 3))
def test_softmax_output_backward_of_some_classes(
    kernels: Kernels, classes, first, count, beside
):
    memory, random = Memory(), np.random.default_rng(classes)
    first = min(first, classes - 1)
    count = min(count, classes - first)
    labels = [*range(classes), *BAD_LABELS]
    y = memory.array(softmax(random.normal(size=(len(labels), classes))))
    label = memory.array(labels)
    dx = memory.nans(len(labels), count + beside)
    options = {"scale": 0.7, "ignore": -1.0, "use_ignore": 0, "alpha": 0.1}
    expected = expected_gradient(y, label, mode=0, batch=1, **options)
    kernels(
        "softmax_output_backward",
        y=y,
        label=label,
        dx=dx,
        dx_row=count + beside,
        rows=len(labels),
        classes=classes,
        first=first,
        count=count,
        sums=0,
        accumulate=0,
        grad_scale=0.7,
        use_ignore=0,
        ignore_label=-1.0,
        smooth_alpha=0.1,
        normalization=0,
        batch=1,
    )
    part = expected[:, first : first + count]
    np.testing.assert_allclose(dx[:, :count], part, rtol=2e-6, atol=1e-7)
    assert np.isnan(dx[:, count:]).all()
    memory.check()
