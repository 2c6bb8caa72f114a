"""Batch normalization kernels against NumPy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.kernels.cpu.table import padded
from tests.runtime.kernels.cpu.activations import activate, gradient
from tests.runtime.kernels.cpu.conftest import Kernels, Memory

fast = settings(max_examples=60, deadline=None)
EPS = 1e-3
shapes = st.tuples(
    st.integers(1, 3), st.integers(1, 33), st.integers(1, 4), st.integers(1, 40)
)


def sizes(shape):
    """The fields of an image tensor's sizes."""
    return dict(zip(("images", "channels", "height", "width"), shape, strict=True))


def per_channel(vector):
    """A vector of channels, to combine with NCHW."""
    return np.asarray(vector, np.float64)[:, None, None]


@pytest.mark.parametrize("fix_gamma", [0, 1])
@fast
@given(shape=shapes, offset=st.sampled_from([0.0, 1000.0]), pivoted=st.booleans())
def test_statistics_to_scale(kernels: Kernels, shape, fix_gamma, offset, pivoted):
    memory, random = Memory(), np.random.default_rng(sum(shape))
    channels = shape[1]
    stored = padded(channels)
    x = memory.image(random.normal(size=shape) + offset)
    gamma, beta, old_mean, old_variance = (
        memory.array(random.uniform(0.5, 2, channels)) for _ in range(4)
    )
    pivot = memory.array(np.full(channels, offset)) if pivoted else 0
    statistics = memory.array(np.zeros(2 * stored), np.float64)
    kernels(
        "batch_norm_statistics",
        **x.fields("x"),
        **sizes(shape),
        pivot=pivot,
        statistics=statistics,
    )
    mean, inverse, scale, shift = (memory.nans(stored) for _ in range(4))
    next_mean, next_variance = (memory.nans(channels) for _ in range(2))
    kernels(
        "batch_norm_finish",
        statistics=statistics,
        pivot=pivot,
        gamma=0 if fix_gamma else gamma,
        beta=beta,
        fix_gamma=fix_gamma,
        eps=EPS,
        momentum=0.9,
        count=x.nchw[:, 0].size,
        channels=channels,
        mean=mean,
        inverse=inverse,
        scale=scale,
        shift=shift,
        moving_mean=old_mean,
        moving_variance=old_variance,
        next_mean=next_mean,
        next_variance=next_variance,
    )
    values = x.nchw.astype(np.float64)
    exact_mean, variance = values.mean((0, 2, 3)), values.var((0, 2, 3))
    np.testing.assert_allclose(mean[:channels], exact_mean, rtol=1e-6, atol=1e-6)
    # float32 squares of what is left of the mean lose about 1e-7 of themselves.
    distance = exact_mean - (offset if pivoted else 0)
    loss = 1e-6 * (1 + (distance**2).max())
    found = 1 / inverse[:channels].astype(np.float64) ** 2 - EPS
    np.testing.assert_allclose(found, variance, rtol=1e-5, atol=loss)
    np.testing.assert_allclose(
        next_variance, 0.9 * old_variance + 0.1 * variance, rtol=1e-5, atol=loss
    )
    factor = inverse[:channels].astype(np.float64) * (1 if fix_gamma else gamma)
    np.testing.assert_allclose(scale[:channels], factor, rtol=1e-6)
    # What rounding took from the mean is put back by the shift. Sums of float32
    # lose about 1e-7 of what they add up.
    left = (mean[:channels] - exact_mean) * factor
    lost = 1e-6 * (1 + abs(distance * factor).max())
    np.testing.assert_allclose(shift[:channels], beta + left, rtol=1e-5, atol=lost)
    np.testing.assert_allclose(next_mean, 0.9 * old_mean + 0.1 * exact_mean, rtol=1e-5)
    for vector in (mean, inverse, scale, shift):
        np.testing.assert_array_equal(vector[channels:], 0)
    memory.check()


@pytest.mark.parametrize("fix_gamma", [0, 1])
@fast
@given(channels=st.integers(1, 33))
def test_scale_from_moving_statistics(kernels: Kernels, channels, fix_gamma):
    memory, random = Memory(), np.random.default_rng(channels)
    stored = padded(channels)
    gamma, beta, moving_mean, moving_variance = (
        memory.array(random.uniform(0.5, 2, channels)) for _ in range(4)
    )
    mean, inverse, scale, shift = (memory.nans(stored) for _ in range(4))
    kernels(
        "batch_norm_scale",
        gamma=0 if fix_gamma else gamma,
        beta=beta,
        fix_gamma=fix_gamma,
        eps=EPS,
        moving_mean=moving_mean,
        moving_variance=moving_variance,
        channels=channels,
        mean=mean,
        inverse=inverse,
        scale=scale,
        shift=shift,
    )
    factor = 1 / np.sqrt(moving_variance.astype(np.float64) + EPS)
    exact_scale = factor * (1 if fix_gamma else gamma)
    expected = (moving_mean, factor, exact_scale, beta)
    for vector, exact in zip((mean, inverse, scale, shift), expected, strict=True):
        np.testing.assert_allclose(vector[:channels], exact, rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(vector[channels:], 0)
    memory.check()


@fast
@given(shape=shapes, epilogue=st.integers(0, 5), added=st.booleans())
def test_apply(kernels: Kernels, shape, epilogue, added):
    memory, random = Memory(), np.random.default_rng(sum(shape))
    channels = shape[1]
    x, residual = (memory.image(random.normal(size=shape), i) for i in range(2))
    y = memory.image(random.normal(size=shape), 2)
    mean, scale, shift = (memory.zeros(padded(channels)) for _ in range(3))
    mean[:channels] = random.normal(size=channels)
    scale[:channels] = random.normal(size=channels)
    shift[:channels] = random.normal(size=channels)
    residual_fields = residual.fields("residual")
    if not added:
        residual_fields["residual"] = 0
    kernels(
        "batch_norm_apply",
        **x.fields("x"),
        **residual_fields,
        **y.fields("y"),
        **sizes(shape),
        mean=mean,
        scale=scale,
        shift=shift,
        epilogue=epilogue,
    )
    expected = (x.nchw - per_channel(mean[:channels])) * per_channel(scale[:channels])
    expected = expected + per_channel(shift[:channels])
    expected = activate(expected + residual.nchw * added, epilogue)
    np.testing.assert_allclose(y.nchw, expected, rtol=1e-5, atol=1e-6)
    y.check_padding()
    memory.check()


@fast
@given(
    shape=shapes,
    epilogue=st.integers(0, 5),
    target=st.sampled_from(["none", "dy", "apart"]),
)
def test_backward_sums(kernels: Kernels, shape, epilogue, target):
    memory, random = Memory(), np.random.default_rng(sum(shape))
    channels = shape[1]
    stored = padded(channels)
    dy, x = (memory.image(random.normal(size=shape), i) for i in range(2))
    y = memory.image(activate(random.normal(size=shape), epilogue), 1)
    apart = memory.image(random.normal(size=shape), 1)
    masked = {"none": apart, "dy": dy, "apart": apart}[target]
    mean = memory.zeros(stored)
    mean[:channels] = random.normal(size=channels)
    sums = memory.array(np.ones(2 * stored), np.float64)
    g = dy.nchw * (gradient(y.nchw, epilogue) if epilogue else 1.0)
    before = apart.nchw.copy()
    masked_fields = masked.fields("masked")
    if target == "none":
        masked_fields["masked"] = 0
    kernels(
        "batch_norm_backward_sums",
        **dy.fields("dy"),
        **y.fields("y"),
        **x.fields("x"),
        **masked_fields,
        **sizes(shape),
        mean=mean,
        sums=sums,
        epilogue=epilogue,
    )
    found = sums.reshape(2, stored) - 1
    expected = [
        g.sum((0, 2, 3)),
        (g * (x.nchw - per_channel(mean[:channels]))).sum((0, 2, 3)),
    ]
    np.testing.assert_allclose(found[:, :channels], expected, rtol=1e-4, atol=1e-4)
    assert not found[:, channels:].any()
    if target == "none":
        np.testing.assert_array_equal(apart.nchw, before)
    else:
        np.testing.assert_allclose(masked.nchw, g, rtol=1e-5, atol=1e-6)
        masked.check_padding()
    memory.check()


@pytest.mark.parametrize("fix_gamma", [0, 1])
@fast
@given(shape=shapes, accumulate=st.integers(0, 1), wanted=st.booleans())
def test_backward(kernels: Kernels, shape, fix_gamma, accumulate, wanted):
    """The gradient's three constants against the formula that they stand for."""
    memory, random = Memory(), np.random.default_rng(sum(shape))
    channels = shape[1]
    stored = padded(channels)
    x, g = (memory.image(random.normal(size=shape), i) for i in range(2))
    dx = memory.image(random.normal(size=shape), 1)
    values, upstream = x.nchw.astype(np.float64), g.nchw.astype(np.float64)
    count = values[:, 0].size
    average = values.mean((0, 2, 3))
    factor = 1 / np.sqrt(values.var((0, 2, 3)) + EPS)
    gamma = memory.array(random.uniform(0.5, 2, channels))
    mean, inverse = memory.zeros(stored), memory.zeros(stored)
    mean[:channels], inverse[:channels] = average, factor
    sums = memory.array(np.zeros(2 * stored), np.float64)
    total = upstream.sum((0, 2, 3))
    product = (upstream * (values - per_channel(average))).sum((0, 2, 3))
    sums[:channels], sums[stored : stored + channels] = total, product

    gradients = [memory.array(random.normal(size=channels)) for _ in range(2)]
    before = [vector.copy() for vector in gradients]
    k = [memory.nans(stored) for _ in range(3)]
    kernels(
        "batch_norm_backward_finish",
        sums=sums,
        inverse=inverse,
        gamma=0 if fix_gamma else gamma,
        fix_gamma=fix_gamma,
        count=count,
        channels=channels,
        gamma_gradient=gradients[0] if wanted else 0,
        beta_gradient=gradients[1] if wanted else 0,
        k1=k[0],
        k2=k[1],
        k3=k[2],
        accumulate=accumulate,
    )
    expected = [0 * product if fix_gamma else product * factor, total]
    for vector, exact, old in zip(gradients, expected, before, strict=True):
        exact = exact + accumulate * old if wanted else old
        np.testing.assert_allclose(vector, exact, rtol=1e-5, atol=1e-5)
    for vector in k:
        np.testing.assert_array_equal(vector[channels:], 0)

    outer = factor * (1 if fix_gamma else gamma)
    normalized = (values - per_channel(average)) * per_channel(factor**2)
    exact = per_channel(outer) * (
        upstream
        - per_channel(total / count)
        - normalized * per_channel(product / count)
    )
    exact = exact + accumulate * dx.nchw
    kernels(
        "batch_norm_backward_apply",
        **x.fields("x"),
        **g.fields("g"),
        **dx.fields("dx"),
        **sizes(shape),
        mean=mean,
        k1=k[0],
        k2=k[1],
        k3=k[2],
        accumulate=accumulate,
    )
    np.testing.assert_allclose(dx.nchw, exact, rtol=1e-4, atol=1e-3)
    dx.check_padding()
    memory.check()
