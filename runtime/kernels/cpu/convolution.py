"""Direct convolution of image tensors: forward, data and weight gradients.

Nothing is unrolled into columns: the register tiles read the input where it lies.
Where the input's channels need no padding, the taps of one window row are one
contiguous run of kernel_w * channels floats.
"""

from __future__ import annotations

import numpy as np

from runtime.kernels.cpu.channel_sums import add_moments, padded_channels
from runtime.kernels.cpu.entry import kernel
from runtime.kernels.cpu.layout import transpose_matrix
from runtime.kernels.cpu.lowering import (
    LANES,
    inlined,
)
from runtime.kernels.cpu.microkernel import tile
from runtime.kernels.cpu.target import host_target
from runtime.kernels.cpu.tile_shapes import (
    ONE_PARTIAL_VECTOR,
    TWO_PARTIAL_VECTORS,
)
from runtime.kernels.cpu.tiles import (
    ADD_AFTER_EPILOGUE,
    ADD_BEFORE_EPILOGUE,
    PANEL,
    REPLACE,
    TAPS,
    even_share,
    load_row,
    multiply_rows,
)
from runtime.kernels.cpu.vector import (
    fill_bytes,
    get,
    load,
    load_first,
    put,
    splat,
    stack,
    store,
)

_CACHE_FLOATS = host_target().cache_bytes // 4
_NEAR_FLOATS = 8192

_bias_row = stack(PANEL)
_block = stack(LANES * LANES)
_ROWS_1 = ONE_PARTIAL_VECTOR.max_rows
_ROWS_2 = TWO_PARTIAL_VECTORS.max_rows
_tile_1 = tile(ONE_PARTIAL_VECTOR)
_tile_2 = tile(TWO_PARTIAL_VECTORS)


@inlined
def panel_columns(left: int) -> int:
    """Width of the next panel of a weight: two vectors, at the end perhaps one."""
    return LANES if left <= LANES else PANEL


@inlined
def tap_number(position: int, start: int, step: int, count: int) -> int:
    """Which of the taps start, start + step, ... a position is; -1 if none."""
    distance = position - start
    if distance == 0:
        return 0
    if step == 0 or distance % step != 0:
        return -1
    number = distance // step
    return number if 0 <= number < count else -1


@kernel
def conv_pack(
    weight: int,
    scale: int,
    panels: int,
    out_channels: int,
    in_channels: int,
    kernel_h: int,
    kernel_w: int,
    transpose: int,
    h_start: int,
    h_step: int,
    h_count: int,
    w_start: int,
    w_step: int,
    w_count: int,
) -> None:
    """OIHW weight to panels of output channels, for `conv`.

    A panel's rows are the chosen taps (h, w) and in each the input channels. With
    `transpose` the channels change their roles. Every panel is two vectors wide;
    the last is one if that suffices. `scale`, unless 0, multiplies the columns.
    """
    taps = kernel_h * kernel_w
    # The panels' columns are rows of the weight as a matrix: all of it, or one
    # matrix per output channel if those are what is summed over.
    columns, depth = out_channels, in_channels
    matrices, run = 1, in_channels * taps
    if transpose != 0:
        columns, depth = in_channels, out_channels
        matrices, run = out_channels, taps
    size = h_count * w_count * depth
    block = _block()
    for first in range(0, columns, LANES):
        j = first // PANEL * PANEL
        width = panel_columns(columns - j)
        panel = panels + 4 * (j * size + first - j)
        factor = splat(np.float32(1))
        if scale != 0:
            factor = load_first(scale, first, columns - first)
        for matrix in range(matrices):
            for start in range(0, run, LANES):
                length = min(LANES, run - start)
                source = weight + 4 * (matrix * columns * run + first * run + start)
                # fmt: off
                transpose_matrix(source, run, block, LANES,
                          min(LANES, columns - first), length, LANES)
                # fmt: on
                for r in range(length):
                    position = (start + r) % taps
                    h = tap_number(position // kernel_w, h_start, h_step, h_count)
                    w = tap_number(position % kernel_w, w_start, w_step, w_count)
                    if h >= 0 and w >= 0:
                        channel = matrix + (start + r) // taps
                        row = (h * w_count + w) * depth + channel
                        value = load(block, r * LANES) * factor
                        store(panel, row * width, value)
        # A panel of two vectors of which only one holds channels does not occur.


@inlined
def taps_before(position: int, dilate: int, kernel: int) -> int:
    """How many of the taps at position, position + dilate, ... are below zero."""
    return min((max(-position, 0) + dilate - 1) // dilate, kernel)


@kernel
def conv(
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
    in_height: int,
    in_width: int,
    stride_h: int,
    stride_w: int,
    dilate_h: int,
    dilate_w: int,
    pad_h: int,
    pad_w: int,
    kernel_h: int,
    kernel_w: int,
    in_channels: int,
    out_channels: int,
    panels: int,
    bias: int,
    statistics: int,
    pivot: int,
    epilogue: int,
    accumulate: int,
    by_pixel: int,
) -> None:
    """y = epilogue(x * weight + bias (+ residual)) (+ y).

    With sums over y for batch normalization. With `residual` nothing is accumulated.
    The first tap of output pixel (0, 0) is input pixel (-pad_h, -pad_w). The pixels
    of an output row are computed together; rows of taps outside the input are left
    out, single taps outside it read its halo. With `by_pixel` all images' pixels of
    one position are computed together, from the taps inside the input only: then no
    halo is needed, but every position must have such a tap.
    """
    step_h, step_w = stride_h * x_row, stride_w * x_pixel
    tap_h, tap_w = dilate_h * x_row, dilate_w * x_pixel
    joined = kernel_w == 1 or tap_w == in_channels
    if joined and kernel_w == TAPS and tap_w == step_w and out_channels <= LANES:
        joined = by_pixel != 0  # else the tiles with three taps do it
    size = kernel_h * kernel_w * in_channels

    addend, addend_image, addend_row = y, y_image, y_row
    addend_pixel, carry = y_pixel, REPLACE
    if residual != 0:
        addend, addend_image, addend_row = residual, residual_image, residual_row
        addend_pixel, carry = residual_pixel, ADD_BEFORE_EPILOGUE
    elif accumulate != 0:
        carry = ADD_AFTER_EPILOGUE if epilogue != 0 else ADD_BEFORE_EPILOGUE

    # What is computed together: a run of output pixels with the same taps.
    run_step, run_result, run_addend = step_w, y_pixel, addend_pixel
    group, across = 1, 1
    if by_pixel != 0:
        run_step, run_result, run_addend = x_image, y_image, addend_image
        group, across = images, width
    else:
        # Rows that lie one behind the other are one row; so are images, as many as
        # stay in the cache from one panel to the next.
        bottom = (height - 1) * stride_h + (kernel_h - 1) * dilate_h - pad_h
        inside = pad_h <= 0 and bottom < in_height
        if inside and step_h == width * step_w and y_row == width * y_pixel:
            if addend_row == width * addend_pixel:
                width, height = width * height, 1
                inside = x_image == width * step_w and y_image == width * y_pixel
                if inside and addend_image == width * addend_pixel:
                    group = max(1, _CACHE_FLOATS // 4 // (x_image + y_image))

    stored = padded_channels(out_channels)
    bias_row = _bias_row()
    for image in range(0, images, group):
        members = min(group, images - image)
        run = members if by_pixel != 0 else members * width
        for j in range(0, stored, PANEL):
            columns = panel_columns(stored - j)
            load_row(bias_row, bias, j, out_channels - j)
            for h in range(height):
                top = h * stride_h - pad_h
                first_h = min(taps_before(top, dilate_h, kernel_h), kernel_h - 1)
                end_h = taps_before(top - in_height, dilate_h, kernel_h)
                end_h = max(end_h, first_h + 1)  # a tap in the halo if there is none
                for w in range(across):
                    left = w * stride_w - pad_w
                    first_w, end_w = 0, kernel_w
                    if by_pixel != 0:
                        first_w = taps_before(left, dilate_w, kernel_w)
                        end_w = taps_before(left - in_width, dilate_w, kernel_w)
                    n1, a1, n2, a2 = end_w - first_w, tap_w, in_channels, 1
                    if in_channels == 1:
                        n1, n2, a2 = 1, n1, a1
                    elif joined:
                        n1, n2 = 1, n1 * in_channels
                    source = x + 4 * (image * x_image + top * x_row + left * x_pixel)
                    source += 4 * (first_h * tap_h + first_w * tap_w)
                    result = y + 4 * (image * y_image + h * y_row + w * y_pixel + j)
                    added = image * addend_image + h * addend_row + w * addend_pixel + j
                    tap = first_h * kernel_w + first_w
                    panel = panels + 4 * (j * size + tap * in_channels * columns)
                    # fmt: off
                    multiply_rows(run, source, run_step, panel, columns, columns,
                                  end_h - first_h, tap_h,
                                  kernel_w * in_channels * columns,
                                  n1, a1, n2, a2, bias, bias_row,
                                  addend + 4 * added, run_addend, result, run_result,
                                  out_channels - j, stored - j, 0, 0, epilogue, carry)
                    # fmt: on
            if statistics != 0:
                for member in range(image, image + members):
                    # fmt: off
                    add_moments(y + 4 * member * y_image, y_row, y_pixel, height,
                                width, j, min(j + columns, stored), out_channels,
                                pivot, statistics)
                    # fmt: on


@kernel
def conv_weight_gradient(
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
    in_height: int,
    in_width: int,
    stride_h: int,
    stride_w: int,
    dilate_h: int,
    dilate_w: int,
    pad_h: int,
    pad_w: int,
    kernel_h: int,
    kernel_w: int,
    in_channels: int,
    out_channels: int,
    gradient: int,
    scratch: int,
    accumulate: int,
) -> None:
    """OIHW gradient of a convolution's weight (+ what `gradient` holds).

    For every tap a product of matrices, input channels x pixels x output channels,
    summed in `scratch` over blocks of pixels that fit into the cache. Pixels at which
    a tap is outside the input are left out, or read the input's halo.
    """
    stored = padded_channels(out_channels)
    row = (out_channels + LANES - 1) // LANES * LANES
    depth = kernel_h * kernel_w * in_channels
    fill_bytes(scratch, 4 * depth * row)

    # One matrix per window row where its taps are equally far apart, else per tap.
    taps, m, a_row = kernel_w, in_channels, 1
    if in_channels == 1:
        taps, m, a_row = 1, kernel_w, dilate_w * x_pixel
    elif kernel_w == 1 or dilate_w * x_pixel == in_channels:
        taps, m = 1, kernel_w * in_channels

    # The pixels of a block stay in the first-level cache; but sums that do not stay in
    # the second-level cache should be fetched for more pixels at once.
    block = _NEAR_FLOATS if depth * row <= _CACHE_FLOATS // 4 else _CACHE_FLOATS // 4
    line = width * (stride_h * stride_w * x_pixel + dy_pixel)
    rows = max(1, min(height, block // line))
    batch = max(1, min(images, block // (line * height)))
    for image in range(0, images, batch):
        for h in range(0, height, rows):
            # fmt: off
            _add_block(x + 4 * image * x_image, x_image, x_row, x_pixel,
                       dy + 4 * image * dy_image, dy_image, dy_row, dy_pixel,
                       stored, min(batch, images - image),
                       h, min(h + rows, height), width, in_height, in_width,
                       stride_h, stride_w, dilate_h, dilate_w, pad_h, pad_w,
                       kernel_h, taps, m, a_row, scratch, row)
            # fmt: on

    _store_gradient(
        scratch,
        row,
        gradient,
        out_channels,
        in_channels,
        kernel_h * kernel_w,
        accumulate,
    )


@inlined
def _add_block(
    x: int,
    x_image: int,
    x_row: int,
    x_pixel: int,
    dy: int,
    dy_image: int,
    dy_row: int,
    dy_pixel: int,
    stored: int,
    images: int,
    first_h: int,
    end_h: int,
    width: int,
    in_height: int,
    in_width: int,
    stride_h: int,
    stride_w: int,
    dilate_h: int,
    dilate_w: int,
    pad_h: int,
    pad_w: int,
    kernel_h: int,
    taps: int,
    m: int,
    a_row: int,
    scratch: int,
    row: int,
) -> None:
    """Add the products of the pixels in some rows of some images to the sums."""
    for j in range(0, stored, PANEL):
        columns = stored - j
        most = _ROWS_1 if columns <= LANES else _ROWS_2
        for t in range(kernel_h * taps):
            # The pixels h, w at which this tap is inside.
            top = t // taps * dilate_h - pad_h
            left = t % taps * dilate_w - pad_w
            h = max(first_h, taps_before(top, stride_h, end_h))
            w = 0
            height = taps_before(top - in_height, stride_h, end_h) - h
            across = width
            if taps > 1:
                w = taps_before(left, stride_w, width)
                across = taps_before(left - in_width, stride_w, width) - w
            if height <= 0 or across <= 0:
                continue
            a = x + 4 * ((h * stride_h + top) * x_row + (w * stride_w + left) * x_pixel)
            b = dy + 4 * (h * dy_row + w * dy_pixel + j)
            i = 0
            while i < m:
                rows = even_share(m - i, most)
                out = scratch + 4 * ((t * m + i) * row + j)
                # fmt: off
                if columns <= LANES:
                    _tile_1(rows, a + 4 * i * a_row, a_row, b, images, x_image,
                            dy_image, height, stride_h * x_row, dy_row, across,
                            stride_w * x_pixel, dy_pixel, out, row, out, row, 0, 0,
                            columns)
                else:
                    _tile_2(rows, a + 4 * i * a_row, a_row, b, images, x_image,
                            dy_image, height, stride_h * x_row, dy_row, across,
                            stride_w * x_pixel, dy_pixel, out, row, out, row, 0, 0,
                            columns)
                # fmt: on
                i += rows


@inlined
def _store_gradient(
    scratch: int,
    row: int,
    gradient: int,
    out_channels: int,
    in_channels: int,
    taps: int,
    accumulate: int,
) -> None:
    """Sums [tap][input channel][output channel] to the OIHW gradient."""
    for o in range(out_channels):
        for i in range(in_channels):
            for t in range(taps):
                place = (o * in_channels + i) * taps + t
                value = get(scratch, (t * in_channels + i) * row + o)
                if accumulate != 0:
                    value = value + get(gradient, place)
                put(gradient, place, value)
