"""Convolution, its gradients and their packing against NumPy."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from runtime.kernels.cpu.table import (
    conv_panels_size,
    conv_weight_scratch,
    padded,
    panel_width,
)
from tests.runtime.kernels.cpu.activations import activate
from tests.runtime.kernels.cpu.conftest import Kernels, Memory

fast = settings(max_examples=150, deadline=None)
NO_RESIDUAL = {f"residual{suffix}": 0 for suffix in ("", "_image", "_row", "_pixel")}


@dataclass(frozen=True)
class Case:
    """One convolution."""

    images: int = 2
    in_channels: int = 3
    out_channels: int = 5
    height: int = 7
    width: int = 9
    kernel: tuple[int, int] = (3, 3)
    stride: tuple[int, int] = (1, 1)
    dilate: tuple[int, int] = (1, 1)
    pad: int = 1

    @property
    def out(self) -> tuple[int, int]:
        """Output height and width."""
        size = zip(
            (self.height, self.width),
            self.kernel,
            self.stride,
            self.dilate,
            strict=True,
        )
        return tuple(
            (n + 2 * self.pad - d * (k - 1) - 1) // s + 1 for n, k, s, d in size
        )  # type: ignore[return-value]

    @property
    def possible(self) -> bool:
        """Whether there is any output."""
        return min(self.out) >= 1

    @property
    def feeds_all(self) -> bool:
        """Whether every output pixel has a tap inside the input."""
        ones = np.ones((1, 1, self.height, self.width))
        return bool(np.all(sum(window for _, _, window in self.windows(ones))))

    def fields(self) -> dict[str, int]:
        """The sizes that the three kernels share."""
        return {
            "images": self.images,
            "height": self.out[0],
            "width": self.out[1],
            "in_height": self.height,
            "in_width": self.width,
            "stride_h": self.stride[0],
            "stride_w": self.stride[1],
            "dilate_h": self.dilate[0],
            "dilate_w": self.dilate[1],
            "pad_h": self.pad,
            "pad_w": self.pad,
            "kernel_h": self.kernel[0],
            "kernel_w": self.kernel[1],
            "in_channels": self.in_channels,
            "out_channels": self.out_channels,
        }

    def windows(self, x):
        """The inputs of each tap: (kh, kw) -> array [images, channels, out h, w]."""
        p = self.pad
        x = np.pad(np.asarray(x, np.float64), ((0, 0), (0, 0), (p, p), (p, p)))
        rows, columns = self.out
        for i in range(self.kernel[0]):
            for j in range(self.kernel[1]):
                h, w = i * self.dilate[0], j * self.dilate[1]
                yield (
                    i,
                    j,
                    x[
                        :,
                        :,
                        h : h + self.stride[0] * (rows - 1) + 1 : self.stride[0],
                        w : w + self.stride[1] * (columns - 1) + 1 : self.stride[1],
                    ],
                )

    def forward(self, x, weight):
        """The convolution in float64."""
        return sum(
            np.einsum("nihw,oi->nohw", window, weight[:, :, i, j].astype(np.float64))
            for i, j, window in self.windows(x)
        )

    def weight_gradient(self, x, dy):
        """Its gradient with respect to the weight in float64."""
        shape = (self.out_channels, self.in_channels, *self.kernel)
        result = np.zeros(shape)
        for i, j, window in self.windows(x):
            result[:, :, i, j] = np.einsum(
                "nihw,nohw->oi", window, dy.astype(np.float64)
            )
        return result


cases = st.builds(
    Case,
    images=st.sampled_from([1, 2, 3, 17]),
    in_channels=st.integers(1, 33),
    out_channels=st.integers(1, 49),
    height=st.integers(1, 8),
    width=st.integers(1, 33),
    kernel=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    stride=st.tuples(st.integers(1, 2), st.integers(1, 3)),
    dilate=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    pad=st.integers(0, 2),
).filter(lambda case: case.possible)


def pack(kernels, memory, weight, transpose=0, h=None, w=None, scale=0):
    """Panels of a weight; h and w are (start, step, count) of the taps."""
    out_channels, in_channels, kernel_h, kernel_w = weight.shape
    h, w = h or (0, 1, kernel_h), w or (0, 1, kernel_w)
    panels = memory.nans(conv_panels_size(in_channels, out_channels, h[2] * w[2]))
    kernels(
        "conv_pack",
        weight=weight,
        scale=scale,
        panels=panels,
        out_channels=out_channels,
        in_channels=in_channels,
        kernel_h=kernel_h,
        kernel_w=kernel_w,
        transpose=transpose,
        **dict(zip(("h_start", "h_step", "h_count"), h, strict=True)),
        **dict(zip(("w_start", "w_step", "w_count"), w, strict=True)),
    )
    return panels


@pytest.mark.parametrize("transpose", [0, 1])
@fast
@given(
    out_channels=st.integers(1, 33),
    in_channels=st.integers(1, 33),
    kernel=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    scaled=st.booleans(),
    data=st.data(),
)
def test_pack_of_some_taps(
    kernels: Kernels, out_channels, in_channels, kernel, scaled, transpose, data
):
    memory = Memory()
    chosen = []
    for size in kernel:
        taps = range(size)[
            data.draw(st.sampled_from([slice(None, None, s) for s in (1, 2, -1, -2)]))
        ]
        taps = taps[: data.draw(st.integers(1, len(taps)))]
        chosen.append((taps.start, taps.step, len(taps)))
    shape = (out_channels, in_channels, *kernel)
    weight = memory.array(np.arange(np.prod(shape)).reshape(shape) + 1)
    columns = in_channels if transpose else out_channels
    scale = memory.array(np.arange(columns) % 5 - 2) if scaled else 0
    panels = pack(kernels, memory, weight, transpose, *chosen, scale)
    if scaled:
        weight *= scale[:, None, None] if transpose else scale[:, None, None, None]

    h, w = (range(a, a + s * c, s) for a, s, c in chosen)
    matrix = weight[:, :, list(h)][:, :, :, list(w)]
    # [tap][summed channel][written channel]
    matrix = matrix.transpose((2, 3, 0, 1) if transpose else (2, 3, 1, 0))
    matrix = matrix.reshape(-1, matrix.shape[-1])
    depth, columns = matrix.shape
    lanes, start = panel_width() // 2, 0
    for j in range(0, columns, 2 * lanes):
        width = lanes if columns - j <= lanes else 2 * lanes
        expected = np.zeros((depth, width), np.float32)
        expected[:, : columns - j] = matrix[:, j : j + width]
        found = panels[start : start + depth * width].reshape(depth, width)
        np.testing.assert_array_equal(found, expected)
        start += depth * width
    memory.check()


@fast
@given(
    case=cases,
    epilogue=st.integers(0, 5),
    addend=st.sampled_from([None, "y", "residual"]),
    biased=st.booleans(),
    counted=st.booleans(),
    halo=st.integers(0, 1),
    by_pixel=st.integers(0, 1),
    unpadded=st.booleans(),
)
def test_conv(
    kernels: Kernels,
    case,
    epilogue,
    addend,
    biased,
    counted,
    halo,
    by_pixel,
    unpadded,
):
    assume(not by_pixel or case.feeds_all)
    memory, random = Memory(), np.random.default_rng(case.width)
    shape = (case.images, case.in_channels, case.height, case.width)
    reach = 0 if by_pixel else case.pad
    x = memory.image(random.normal(size=shape), reach, unpadded)
    weight = memory.array(
        random.normal(size=(case.out_channels, case.in_channels, *case.kernel))
    )
    shape = (case.images, case.out_channels, *case.out)
    y = memory.image(random.normal(size=shape), halo)
    residual = memory.image(random.normal(size=shape), 1 - halo)
    bias = memory.array(random.normal(size=case.out_channels)) if biased else 0
    pivot = memory.array(random.normal(size=case.out_channels)) if counted else 0
    stored = padded(case.out_channels)
    statistics = memory.array(np.ones(2 * stored), np.float64) if counted else 0

    expected = case.forward(x.nchw, weight)
    if biased:
        expected = expected + bias[:, None, None]
    if addend == "residual":
        expected = expected + residual.nchw
    expected = activate(expected, epilogue)
    if addend == "y":
        expected = expected + y.nchw
    kernels(
        "conv",
        **x.fields("x"),
        **(residual.fields("residual") if addend == "residual" else NO_RESIDUAL),
        **y.fields("y"),
        **case.fields(),
        panels=pack(kernels, memory, weight),
        bias=bias,
        statistics=statistics,
        pivot=pivot,
        epilogue=epilogue,
        accumulate=int(addend == "y"),
        by_pixel=by_pixel,
    )
    np.testing.assert_allclose(y.nchw, expected, rtol=1e-4, atol=1e-4)
    y.check_padding()
    if counted:
        centered = y.nchw.astype(np.float64) - pivot[:, None, None]
        sums = statistics.reshape(2, stored)[:, : case.out_channels] - 1
        axes = (0, 2, 3)
        np.testing.assert_allclose(sums[0], centered.sum(axes), rtol=1e-5, atol=1e-4)
        squares = (centered**2).sum(axes)
        np.testing.assert_allclose(sums[1], squares, rtol=1e-5, atol=1e-4)
        rest = statistics.reshape(2, stored)[:, case.out_channels :]
        np.testing.assert_array_equal(rest, np.ones_like(rest))
    memory.check()


@fast
@given(
    case=cases,
    accumulate=st.integers(0, 1),
    halo=st.integers(0, 1),
    unpadded=st.booleans(),
)
def test_conv_weight_gradient(kernels: Kernels, case, accumulate, halo, unpadded):
    memory, random = Memory(), np.random.default_rng(case.width)
    shape = (case.images, case.in_channels, case.height, case.width)
    x = memory.image(random.normal(size=shape), case.pad, unpadded)
    dy = memory.image(
        random.normal(size=(case.images, case.out_channels, *case.out)), halo
    )
    shape = (case.out_channels, case.in_channels, *case.kernel)
    gradient = memory.array(random.normal(size=shape))
    expected = case.weight_gradient(x.nchw, dy.nchw) + accumulate * gradient
    taps = case.kernel[0] * case.kernel[1]
    kernels(
        "conv_weight_gradient",
        **x.fields("x"),
        **dy.fields("dy"),
        **case.fields(),
        gradient=gradient,
        scratch=memory.nans(
            conv_weight_scratch(case.in_channels, case.out_channels, taps)
        ),
        accumulate=accumulate,
    )
    np.testing.assert_allclose(gradient, expected, rtol=1e-4, atol=1e-3)
    memory.check()


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("kernel", [1, 2, 3, 5])
@pytest.mark.parametrize(("in_channels", "out_channels"), [(3, 5), (16, 8), (33, 17)])
def test_data_gradient(
    kernels, memory, random, stride, kernel, in_channels, out_channels
):
    """dx of a strided convolution: one convolution of dy per residue of the pixels."""
    pad = kernel // 2
    case = Case(
        in_channels=in_channels,
        out_channels=out_channels,
        height=8,
        width=11,
        kernel=(kernel, kernel),
        stride=(stride, stride),
        pad=pad,
    )
    weight = memory.array(
        random.normal(size=(out_channels, in_channels, kernel, kernel))
    )
    reach = kernel  # dy's halo: taps of the gradient that lie outside
    dy = memory.image(random.normal(size=(2, out_channels, *case.out)), reach)
    dx = memory.image(np.full((2, in_channels, 8, 11), 9.0))

    for h in range(stride):
        for w in range(stride):
            # Input pixel i meets tap k at output (i + pad - k) / stride.
            start = [(i + pad) % stride for i in (h, w)]
            counts = [len(range(first, kernel, stride)) for first in start]
            sizes = [len(range(i, n, stride)) for i, n in ((h, 8), (w, 11))]
            if 0 in sizes:
                continue
            if 0 in counts:
                dx.interior[:, h::stride, w::stride] = 0
                continue
            last = [f + stride * (c - 1) for f, c in zip(start, counts, strict=True)]
            panels = pack(
                kernels,
                memory,
                weight,
                transpose=1,
                h=(last[0], -stride, counts[0]),
                w=(last[1], -stride, counts[1]),
            )
            first = [(i + pad - k) // stride for i, k in zip((h, w), last, strict=True)]
            result = dx.fields("y", h, w)
            result["y_row"] *= stride
            result["y_pixel"] *= stride
            kernels(
                "conv",
                **dy.fields("x"),
                **NO_RESIDUAL,
                **result,
                images=2,
                height=sizes[0],
                width=sizes[1],
                in_height=case.out[0],
                in_width=case.out[1],
                stride_h=1,
                stride_w=1,
                dilate_h=1,
                dilate_w=1,
                pad_h=-first[0],
                pad_w=-first[1],
                kernel_h=counts[0],
                kernel_w=counts[1],
                in_channels=out_channels,
                out_channels=in_channels,
                panels=panels,
                bias=0,
                statistics=0,
                pivot=0,
                epilogue=0,
                accumulate=0,
                by_pixel=0,
            )

    # <forward(x), dy> is linear in x, and dx its gradient.
    x = random.normal(size=(2, in_channels, 8, 11))
    product = (case.forward(x, weight) * dy.nchw).sum()
    np.testing.assert_allclose((x * dx.nchw).sum(), product, rtol=1e-4, atol=1e-3)
    dx.check_padding()


@fast
@given(
    images=st.integers(1, 3),
    channels=st.integers(1, 33),
    height=st.integers(1, 5),
    width=st.integers(1, 40),
    accumulate=st.integers(0, 1),
)
def test_sums_over_pixels(
    kernels: Kernels, images, channels, height, width, accumulate
):
    memory, random = Memory(), np.random.default_rng(width)
    x = memory.image(random.normal(size=(images, channels, height, width)), 1)
    sizes = {"images": images, "height": height, "width": width, "channels": channels}
    sums = memory.array(random.normal(size=channels))
    expected = x.nchw.sum((0, 2, 3), dtype=np.float64) + accumulate * sums
    kernels("image_sums", **x.fields("x"), **sizes, sums=sums, accumulate=accumulate)
    np.testing.assert_allclose(sums, expected, rtol=1e-4, atol=1e-4)

    stored = padded(channels)
    pivot = memory.array(random.normal(size=channels))
    statistics = memory.array(np.ones(2 * stored), np.float64)
    kernels(
        "batch_norm_statistics",
        **x.fields("x"),
        **sizes,
        pivot=pivot,
        statistics=statistics,
    )
    centered = x.nchw.astype(np.float64) - pivot[:, None, None]
    found = statistics.reshape(2, stored) - 1
    np.testing.assert_allclose(
        found[0, :channels], centered.sum((0, 2, 3)), rtol=1e-5, atol=1e-4
    )
    np.testing.assert_allclose(
        found[1, :channels], (centered**2).sum((0, 2, 3)), rtol=1e-5, atol=1e-4
    )
    assert not found[:, channels:].any()
    memory.check()
