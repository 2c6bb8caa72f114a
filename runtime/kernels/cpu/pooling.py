"""Max, average and sum pooling of image tensors.

The gradients gather: every input pixel is written once, from the windows it is in;
or from window to window, where these lie side by side.
"""

from __future__ import annotations

import numpy as np

from runtime.kernels.cpu.activation import activate, activation_gradient
from runtime.kernels.cpu.channel_sums import padded_channels
from runtime.kernels.cpu.entry import kernel
from runtime.kernels.cpu.lowering import (
    LANES,
    inlined,
)
from runtime.kernels.cpu.narrow import (
    load_bytes,
    store_bytes,
)
from runtime.kernels.cpu.vector import (
    keep_first,
    larger,
    load_first,
    splat,
    store_first,
    where_equal,
    where_less,
    zeros,
)

NO_POSITION = np.float32(255)  # index of a window that meets no input


@inlined
def next_first(
    first: int, position: int, pad: int, size: int, stride: int, windows: int
) -> int:
    """First window that a position of the input is in, from an earlier position's."""
    while first < windows and first * stride + size - pad <= position:
        first += 1
    return first


@inlined
def next_end(end: int, position: int, pad: int, stride: int, windows: int) -> int:
    """One past the last window that a position is in, from an earlier position's."""
    while end < windows and end * stride - pad <= position:
        end += 1
    return end


@inlined
def covered(start: int, size: int, pad: int, length: int, divisor_mode: int) -> int:
    """How many positions of one window side an average counts.

    Mode 0 counts padding (but not what a window has beyond it), mode 1 the input's
    own positions only, mode 2 makes the average a sum.
    """
    if divisor_mode == 0:
        return max(min(start + size, length + pad) - start, 1)
    if divisor_mode == 1:
        return max(min(start + size, length) - max(start, 0), 1)
    return 1


@kernel
def max_pool(
    x: int,
    x_image: int,
    x_row: int,
    x_pixel: int,
    y: int,
    y_image: int,
    y_row: int,
    y_pixel: int,
    index: int,
    images: int,
    height: int,
    width: int,
    in_height: int,
    in_width: int,
    channels: int,
    kernel_h: int,
    kernel_w: int,
    stride_h: int,
    stride_w: int,
    pad_h: int,
    pad_w: int,
    epilogue: int,
) -> None:
    """y = activation(largest input of each window); a NaN makes it NaN.

    `index`, unless 0, is uint8[images, height, width, padded channels]: the position
    of the first largest input in the window, which has at most 255 positions. A
    window without input gives activation(0).
    """
    stored = padded_channels(channels)
    for image in range(images):
        for h in range(height):
            top = h * stride_h - pad_h
            for w in range(width):
                left = w * stride_w - pad_w
                result = y + 4 * (image * y_image + h * y_row + w * y_pixel)
                places = index + ((image * height + h) * width + w) * stored
                for c in range(0, stored, LANES):
                    count = stored - c
                    best = zeros()
                    place = splat(NO_POSITION)
                    empty = True
                    for i in range(max(0, -top), min(kernel_h, in_height - top)):
                        row = x + 4 * (image * x_image + (top + i) * x_row + c)
                        for j in range(max(0, -left), min(kernel_w, in_width - left)):
                            value = load_first(row, (left + j) * x_pixel, count)
                            here = splat(np.float32(i * kernel_w + j))
                            if empty:
                                best = value
                                place = here
                                empty = False
                            else:
                                place = where_less(best, value, here, place)
                                best = larger(best, value)
                    best = activate(best, epilogue)
                    if channels - c < LANES:
                        best = keep_first(best, channels - c)
                    store_first(result, c, best, count)
                    if index != 0:
                        store_bytes(places, c, place, count)


@kernel
def max_pool_backward(
    dy: int,
    dy_image: int,
    dy_row: int,
    dy_pixel: int,
    index: int,
    y: int,
    y_image: int,
    y_row: int,
    y_pixel: int,
    dx: int,
    dx_image: int,
    dx_row: int,
    dx_pixel: int,
    images: int,
    height: int,
    width: int,
    in_height: int,
    in_width: int,
    channels: int,
    kernel_h: int,
    kernel_w: int,
    stride_h: int,
    stride_w: int,
    pad_h: int,
    pad_w: int,
    epilogue: int,
) -> None:
    """dx = sum over the windows whose first largest input a pixel is.

    With an epilogue, dy is multiplied by its gradient at the pooled output y.
    """
    stored = padded_channels(channels)
    # Windows that lie side by side each write their own pixels.
    covered_h, covered_w = height * kernel_h, width * kernel_w
    beside = stride_h == kernel_h and stride_w == kernel_w and pad_h == 0 and pad_w == 0
    if beside and covered_h <= in_height and covered_w <= in_width:
        for image in range(images):
            for i in range(height):
                for j in range(width):
                    top, left = i * kernel_h, j * kernel_w
                    # fmt: off
                    _fill_window(
                        dy + 4 * (image * dy_image + i * dy_row + j * dy_pixel),
                        index + ((image * height + i) * width + j) * stored,
                        y + 4 * (image * y_image + i * y_row + j * y_pixel),
                        dx + 4 * (image * dx_image + top * dx_row + left * dx_pixel),
                        dx_row, dx_pixel, stored, kernel_h, kernel_w, epilogue)
                    # fmt: on
            for h in range(in_height):
                for w in range(covered_w if h < covered_h else 0, in_width):
                    pixel = image * dx_image + h * dx_row + w * dx_pixel
                    _clear(dx + 4 * pixel, stored)
        return
    for image in range(images):
        first_h, end_h = 0, 0
        for h in range(in_height):
            first_h = next_first(first_h, h, pad_h, kernel_h, stride_h, height)
            end_h = next_end(end_h, h, pad_h, stride_h, height)
            first_w, end_w = 0, 0
            for w in range(in_width):
                first_w = next_first(first_w, w, pad_w, kernel_w, stride_w, width)
                end_w = next_end(end_w, w, pad_w, stride_w, width)
                result = dx + 4 * (image * dx_image + h * dx_row + w * dx_pixel)
                if first_h >= end_h or first_w >= end_w:
                    _clear(result, stored)
                for i in range(first_h, end_h):
                    down = (h + pad_h - i * stride_h) * kernel_w
                    for j in range(first_w, end_w):
                        here = splat(np.float32(down + w + pad_w - j * stride_w))
                        a = dy + 4 * (image * dy_image + i * dy_row + j * dy_pixel)
                        b = y + 4 * (image * y_image + i * y_row + j * y_pixel)
                        places = index + ((image * height + i) * width + j) * stored
                        again = i > first_h or j > first_w
                        for c in range(0, stored, LANES):
                            count = stored - c
                            g = load_first(a, c, count)
                            if epilogue != 0:
                                output = load_first(b, c, count)
                                g = g * activation_gradient(output, epilogue)
                            place = load_bytes(places, c, count)
                            g = where_equal(place, here, g, zeros())
                            if again:
                                g = g + load_first(result, c, count)
                            store_first(result, c, g, count)


@inlined
def _fill_window(
    dy: int,
    index: int,
    y: int,
    dx: int,
    dx_row: int,
    dx_pixel: int,
    stored: int,
    kernel_h: int,
    kernel_w: int,
    epilogue: int,
) -> None:
    """Write the gradient of one window's pixels, which are in no other window."""
    for c in range(0, stored, LANES):
        count = stored - c
        g = load_first(dy, c, count)
        if epilogue != 0:
            g = g * activation_gradient(load_first(y, c, count), epilogue)
        place = load_bytes(index, c, count)
        for h in range(kernel_h):
            for w in range(kernel_w):
                here = splat(np.float32(h * kernel_w + w))
                chosen = where_equal(place, here, g, zeros())
                store_first(dx, h * dx_row + w * dx_pixel + c, chosen, count)


@inlined
def _clear(pixel: int, stored: int) -> None:
    """Zero one pixel."""
    for c in range(0, stored, LANES):
        store_first(pixel, c, zeros(), stored - c)


@kernel
def avg_pool(
    x: int,
    x_image: int,
    x_row: int,
    x_pixel: int,
    y: int,
    y_image: int,
    y_row: int,
    y_pixel: int,
    images: int,
    height: int,
    width: int,
    in_height: int,
    in_width: int,
    channels: int,
    kernel_h: int,
    kernel_w: int,
    stride_h: int,
    stride_w: int,
    pad_h: int,
    pad_w: int,
    divisor_mode: int,
) -> None:
    """y = sum of each window's inputs / what `covered` counts."""
    stored = padded_channels(channels)
    for image in range(images):
        for h in range(height):
            top = h * stride_h - pad_h
            rows = covered(top, kernel_h, pad_h, in_height, divisor_mode)
            for w in range(width):
                left = w * stride_w - pad_w
                columns = covered(left, kernel_w, pad_w, in_width, divisor_mode)
                divisor = splat(np.float32(rows * columns))
                result = y + 4 * (image * y_image + h * y_row + w * y_pixel)
                for c in range(0, stored, LANES):
                    count = stored - c
                    total = zeros()
                    for i in range(max(0, top), min(top + kernel_h, in_height)):
                        row = x + 4 * (image * x_image + i * x_row + c)
                        line = zeros()
                        for j in range(max(0, left), min(left + kernel_w, in_width)):
                            line = line + load_first(row, j * x_pixel, count)
                        total = total + line
                    store_first(result, c, total / divisor, count)


@kernel
def avg_pool_backward(
    dy: int,
    dy_image: int,
    dy_row: int,
    dy_pixel: int,
    dx: int,
    dx_image: int,
    dx_row: int,
    dx_pixel: int,
    images: int,
    height: int,
    width: int,
    in_height: int,
    in_width: int,
    channels: int,
    kernel_h: int,
    kernel_w: int,
    stride_h: int,
    stride_w: int,
    pad_h: int,
    pad_w: int,
    divisor_mode: int,
) -> None:
    """dx = sum over a pixel's windows of dy / what `covered` counts."""
    stored = padded_channels(channels)
    for image in range(images):
        first_h, end_h = 0, 0
        for h in range(in_height):
            first_h = next_first(first_h, h, pad_h, kernel_h, stride_h, height)
            end_h = next_end(end_h, h, pad_h, stride_h, height)
            first_w, end_w = 0, 0
            for w in range(in_width):
                first_w = next_first(first_w, w, pad_w, kernel_w, stride_w, width)
                end_w = next_end(end_w, w, pad_w, stride_w, width)
                result = dx + 4 * (image * dx_image + h * dx_row + w * dx_pixel)
                if first_h >= end_h or first_w >= end_w:
                    _clear(result, stored)
                for i in range(first_h, end_h):
                    top = i * stride_h - pad_h
                    rows = covered(top, kernel_h, pad_h, in_height, divisor_mode)
                    for j in range(first_w, end_w):
                        left = j * stride_w - pad_w
                        # fmt: off
                        columns = covered(left, kernel_w, pad_w, in_width,
                                          divisor_mode)
                        # fmt: on
                        share = splat(np.float32(1) / np.float32(rows * columns))
                        a = dy + 4 * (image * dy_image + i * dy_row + j * dy_pixel)
                        again = i > first_h or j > first_w
                        for c in range(0, stored, LANES):
                            g = load_first(a, c, stored - c) * share
                            if again:
                                g = g + load_first(result, c, stored - c)
                            store_first(result, c, g, stored - c)
