"""Convolution of every channel by itself: forward, data and weight gradients.

A vector holds neighboring channels of one pixel, so that nothing is summed across it.
All taps are read, those outside the input from its halo.
"""

from __future__ import annotations

import numpy as np

from runtime.kernels.cpu.activation import activate, rectify
from runtime.kernels.cpu.channel_sums import add_moments, padded_channels
from runtime.kernels.cpu.entry import kernel
from runtime.kernels.cpu.lowering import (
    LANES,
    Vector,
    inlined,
)
from runtime.kernels.cpu.table import Epilogue
from runtime.kernels.cpu.vector import (
    fill_bytes,
    fma,
    get,
    keep_first,
    load_first,
    put,
    store_first,
    zeros,
)

_TOGETHER = 4  # pixels that share the loads of the weight


@kernel
def depthwise_pack(
    weight: int,
    scale: int,
    panels: int,
    channels: int,
    kernel_h: int,
    kernel_w: int,
    h_start: int,
    h_step: int,
    h_count: int,
    w_start: int,
    w_step: int,
    w_count: int,
) -> None:
    """The chosen taps of a weight [channel][1][h][w] to [tap][stored channel].

    `scale`, unless 0, multiplies the channels.
    """
    stored = padded_channels(channels)
    for c in range(stored):
        factor = np.float32(1)
        if scale != 0 and c < channels:
            factor = get(scale, c)
        for h in range(h_count):
            for w in range(w_count):
                place = (h_start + h * h_step) * kernel_w + w_start + w * w_step
                value = np.float32(0)
                if c < channels:
                    value = get(weight, c * kernel_h * kernel_w + place) * factor
                put(panels, (h * w_count + w) * stored + c, value)


@kernel
def depthwise(
    x: int,
    x_image: int,
    x_row: int,
    x_pixel: int,
    residual: int,
    residual_image: int,
    residual_row: int,
    residual_pixel: int,
    y: int,
    y_image: int,
    y_row: int,
    y_pixel: int,
    images: int,
    height: int,
    width: int,
    stride_h: int,
    stride_w: int,
    dilate_h: int,
    dilate_w: int,
    pad_h: int,
    pad_w: int,
    kernel_h: int,
    kernel_w: int,
    channels: int,
    panels: int,
    bias: int,
    statistics: int,
    pivot: int,
    epilogue: int,
) -> None:
    """y = epilogue(x * weight + bias (+ residual)), with sums as by `conv`.

    The first tap of output pixel (0, 0) is input pixel (-pad_h, -pad_w). The residual
    may be y itself.
    """
    stored = padded_channels(channels)
    for image in range(images):
        for h in range(height):
            top = h * stride_h - pad_h
            source = x + 4 * (image * x_image + top * x_row - pad_w * x_pixel)
            result = y + 4 * (image * y_image + h * y_row)
            added = 0
            if residual != 0:
                added = residual + 4 * (image * residual_image + h * residual_row)
            for c in range(0, stored, LANES):
                base = zeros()
                if bias != 0:
                    base = load_first(bias, c, channels - c)
                # fmt: off
                _add_taps(source + 4 * c, stride_w * x_pixel, panels + 4 * c, stored,
                          kernel_h, dilate_h * x_row, kernel_w, dilate_w * x_pixel,
                          base, added + 4 * c if added != 0 else 0, residual_pixel,
                          result + 4 * c, y_pixel, width, stored - c,
                          epilogue == Epilogue.RELU)
                # fmt: on
            if epilogue > Epilogue.RELU:
                _activate_row(result, y_pixel, width, channels, stored, epilogue)
        if statistics != 0:
            # fmt: off
            add_moments(y + 4 * image * y_image, y_row, y_pixel, height, width,
                        0, stored, channels, pivot, statistics)
            # fmt: on


@inlined
def _add_taps(
    x: int,
    x_step: int,
    panels: int,
    panel_row: int,
    n0: int,
    a0: int,
    n1: int,
    a1: int,
    base: Vector,
    residual: int,
    residual_step: int,
    y: int,
    y_step: int,
    width: int,
    count: int,
    rectified: bool,
) -> None:
    """One vector of channels of a row of pixels."""
    p = 0
    while p + _TOGETHER <= width:
        sum0, sum1, sum2, sum3 = base, base, base, base
        if residual != 0:
            r = residual + 4 * p * residual_step
            sum0 = sum0 + load_first(r, 0, count)
            sum1 = sum1 + load_first(r, residual_step, count)
            sum2 = sum2 + load_first(r, 2 * residual_step, count)
            sum3 = sum3 + load_first(r, 3 * residual_step, count)
        weight = panels
        for h in range(n0):
            for w in range(n1):
                a = x + 4 * (p * x_step + h * a0 + w * a1)
                factor = load_first(weight, 0, count)
                sum0 = fma(load_first(a, 0, count), factor, sum0)
                sum1 = fma(load_first(a, x_step, count), factor, sum1)
                sum2 = fma(load_first(a, 2 * x_step, count), factor, sum2)
                sum3 = fma(load_first(a, 3 * x_step, count), factor, sum3)
                weight += 4 * panel_row
        if rectified:
            sum0, sum1 = rectify(sum0), rectify(sum1)
            sum2, sum3 = rectify(sum2), rectify(sum3)
        store_first(y, p * y_step, sum0, count)
        store_first(y, (p + 1) * y_step, sum1, count)
        store_first(y, (p + 2) * y_step, sum2, count)
        store_first(y, (p + 3) * y_step, sum3, count)
        p += _TOGETHER
    while p < width:
        total = base
        if residual != 0:
            total = total + load_first(residual, p * residual_step, count)
        weight = panels
        for h in range(n0):
            for w in range(n1):
                a = x + 4 * (p * x_step + h * a0 + w * a1)
                total = fma(
                    load_first(a, 0, count), load_first(weight, 0, count), total
                )
                weight += 4 * panel_row
        if rectified:
            total = rectify(total)
        store_first(y, p * y_step, total, count)
        p += 1


@inlined
def _activate_row(
    y: int, y_pixel: int, width: int, channels: int, stored: int, epilogue: int
) -> None:
    for p in range(width):
        for c in range(0, stored, LANES):
            value = activate(load_first(y, p * y_pixel + c, stored - c), epilogue)
            value = keep_first(value, channels - c)
            store_first(y, p * y_pixel + c, value, stored - c)


@kernel
def depthwise_weight_gradient(
    x: int,
    x_image: int,
    x_row: int,
    x_pixel: int,
    dy: int,
    dy_image: int,
    dy_row: int,
    dy_pixel: int,
    images: int,
    height: int,
    width: int,
    stride_h: int,
    stride_w: int,
    dilate_h: int,
    dilate_w: int,
    pad_h: int,
    pad_w: int,
    kernel_h: int,
    kernel_w: int,
    channels: int,
    gradient: int,
    scratch: int,
    accumulate: int,
) -> None:
    """Gradient [channel][1][h][w] of the weight (+ what `gradient` holds).

    `scratch` has one float for every tap and stored channel.
    """
    stored = padded_channels(channels)
    taps = kernel_h * kernel_w
    fill_bytes(scratch, 4 * taps * stored)
    x_step = stride_w * x_pixel
    for image in range(images):
        for h in range(height):
            top = h * stride_h - pad_h
            source = x + 4 * (image * x_image + top * x_row - pad_w * x_pixel)
            given = dy + 4 * (image * dy_image + h * dy_row)
            for c in range(0, stored, LANES):
                for t in range(taps):
                    i, j = t // kernel_w * dilate_h, t % kernel_w * dilate_w
                    # fmt: off
                    _add_products(source + 4 * (i * x_row + j * x_pixel + c), x_step,
                                  given + 4 * c, dy_pixel, width,
                                  scratch + 4 * (t * stored + c), stored - c)
                    # fmt: on
    for c in range(channels):
        for t in range(taps):
            value = get(scratch, t * stored + c)
            if accumulate != 0:
                value = value + get(gradient, c * taps + t)
            put(gradient, c * taps + t, value)


@inlined
def _add_products(
    x: int, x_step: int, dy: int, dy_step: int, width: int, total: int, count: int
) -> None:
    """Add the products of a row of pixels to a vector of sums."""
    sum0, sum1, sum2, sum3 = zeros(), zeros(), zeros(), load_first(total, 0, count)
    p = 0
    while p + _TOGETHER <= width:
        a, g = x + 4 * p * x_step, dy + 4 * p * dy_step
        sum0 = fma(load_first(a, 0, count), load_first(g, 0, count), sum0)
        value = load_first(g, dy_step, count)
        sum1 = fma(load_first(a, x_step, count), value, sum1)
        value = load_first(g, 2 * dy_step, count)
        sum2 = fma(load_first(a, 2 * x_step, count), value, sum2)
        value = load_first(g, 3 * dy_step, count)
        sum3 = fma(load_first(a, 3 * x_step, count), value, sum3)
        p += _TOGETHER
    while p < width:
        value = load_first(dy, p * dy_step, count)
        sum0 = fma(load_first(x, p * x_step, count), value, sum0)
        p += 1
    store_first(total, 0, (sum0 + sum1) + (sum2 + sum3), count)
