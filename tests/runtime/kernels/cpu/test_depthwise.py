"""Convolution of every channel by itself against NumPy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.kernels.cpu.table import depthwise_size, padded
from tests.runtime.kernels.cpu.activations import activate
from tests.runtime.kernels.cpu.conftest import Kernels, Memory

fast = settings(max_examples=100, deadline=None)
NO_RESIDUAL = {f"residual{suffix}": 0 for suffix in ("", "_image", "_row", "_pixel")}


def windows(x, kernel, stride, dilate, pad, out):
    """The inputs of each tap: (kh, kw) -> array [images, channels, out h, w]."""
    x = np.pad(np.asarray(x, np.float64), ((0, 0), (0, 0), (pad, pad), (pad, pad)))
    for i, j in np.ndindex(*kernel):
        h, w = i * dilate[0], j * dilate[1]
        last = [s * (n - 1) + 1 for s, n in zip(stride, out, strict=True)]
        yield (
            (i, j),
            x[:, :, h : h + last[0] : stride[0], w : w + last[1] : stride[1]],
        )


def pack(kernels, memory, weight, scale=0, h=None, w=None):
    channels, _, kernel_h, kernel_w = weight.shape
    h, w = h or (0, 1, kernel_h), w or (0, 1, kernel_w)
    panels = memory.nans(depthwise_size(channels, h[2] * w[2]))
    kernels(
        "depthwise_pack",
        weight=weight,
        scale=scale,
        panels=panels,
        channels=channels,
        kernel_h=kernel_h,
        kernel_w=kernel_w,
        **dict(zip(("h_start", "h_step", "h_count"), h, strict=True)),
        **dict(zip(("w_start", "w_step", "w_count"), w, strict=True)),
    )
    return panels


@pytest.mark.parametrize("channels", [1, 8, 11, 33])
def test_pack_of_some_taps(kernels, memory, random, channels):
    weight = memory.array(random.normal(size=(channels, 1, 5, 4)))
    scale = memory.array(random.normal(size=channels))
    panels = pack(kernels, memory, weight, scale, (4, -2, 3), (1, 2, 2))
    expected = np.zeros((6, padded(channels)), np.float32)
    taps = weight[:, 0, 4::-2, 1::2].reshape(channels, 6)
    expected[:, :channels] = (taps * scale[:, None]).T
    np.testing.assert_array_equal(panels.reshape(6, -1), expected)


@fast
@given(
    images=st.integers(1, 2),
    channels=st.integers(1, 33),
    size=st.tuples(st.integers(1, 7), st.integers(1, 19)),
    kernel=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    stride=st.tuples(st.integers(1, 2), st.integers(1, 3)),
    dilate=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    pad=st.integers(0, 2),
    halo=st.integers(0, 1),
    epilogue=st.integers(0, 5),
    addend=st.sampled_from([None, "y", "residual"]),
    biased=st.booleans(),
    counted=st.booleans(),
)
def test_depthwise_and_its_weight_gradient(
    kernels: Kernels,
    images,
    channels,
    size,
    kernel,
    stride,
    dilate,
    pad,
    halo,
    epilogue,
    addend,
    biased,
    counted,
):
    spans = [d * (k - 1) + 1 for d, k in zip(dilate, kernel, strict=True)]
    out = [
        (n + 2 * pad - span) // s + 1
        for n, span, s in zip(size, spans, stride, strict=True)
    ]
    if min(out) < 1:
        return
    memory, random = Memory(), np.random.default_rng(channels)
    x = memory.image(random.normal(size=(images, channels, *size)), pad)
    y = memory.image(random.normal(size=(images, channels, *out)), halo)
    residual = memory.image(random.normal(size=(images, channels, *out)), 1 - halo)
    weight = memory.array(random.normal(size=(channels, 1, *kernel)))
    bias = memory.array(random.normal(size=channels)) if biased else 0
    pivot = memory.array(random.normal(size=channels)) if counted else 0
    stored = padded(channels)
    statistics = memory.array(np.ones(2 * stored), np.float64) if counted else 0
    window = {
        "images": images,
        "height": out[0],
        "width": out[1],
        "stride_h": stride[0],
        "stride_w": stride[1],
        "dilate_h": dilate[0],
        "dilate_w": dilate[1],
        "pad_h": pad,
        "pad_w": pad,
        "kernel_h": kernel[0],
        "kernel_w": kernel[1],
        "channels": channels,
    }
    taps = list(windows(x.nchw, kernel, stride, dilate, pad, out))
    dy = y.nchw.astype(np.float64)

    gradient = memory.array(random.normal(size=weight.shape))
    expected = (addend == "y") * gradient.astype(np.float64)
    for (i, j), values in taps:
        expected[:, 0, i, j] += (values * dy).sum((0, 2, 3))
    kernels(
        "depthwise_weight_gradient",
        **x.fields("x"),
        **y.fields("dy"),
        **window,
        gradient=gradient,
        scratch=memory.nans(depthwise_size(channels, len(taps))),
        accumulate=int(addend == "y"),
    )
    np.testing.assert_allclose(gradient, expected, rtol=1e-4, atol=1e-4)

    expected = sum(values * weight[:, 0, i, j, None, None] for (i, j), values in taps)
    if biased:
        expected = expected + bias[:, None, None]
    added = {None: 0, "y": dy, "residual": residual.nchw}[addend]
    expected = activate(expected + added, epilogue)
    places = {"y": y.fields("residual"), "residual": residual.fields("residual")}
    kernels(
        "depthwise",
        **x.fields("x"),
        **places.get(addend, NO_RESIDUAL),
        **y.fields("y"),
        **window,
        panels=pack(kernels, memory, weight),
        bias=bias,
        statistics=statistics,
        pivot=pivot,
        epilogue=epilogue,
    )
    np.testing.assert_allclose(y.nchw, expected, rtol=1e-4, atol=1e-5)
    y.check_padding()
    if counted:
        centered = y.nchw.astype(np.float64) - pivot[:, None, None]
        sums = statistics.reshape(2, stored) - 1
        axes = (0, 2, 3)
        found = sums[:, :channels]
        np.testing.assert_allclose(found[0], centered.sum(axes), rtol=1e-5, atol=1e-4)
        squares = (centered**2).sum(axes)
        np.testing.assert_allclose(found[1], squares, rtol=1e-5, atol=1e-4)
        assert not sums[:, channels:].any()
    memory.check()
