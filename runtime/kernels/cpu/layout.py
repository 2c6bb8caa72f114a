"""Moving data between layouts: matrix panels, and NCHW to and from images."""

from __future__ import annotations

from types import NoneType
from typing import Any

import numpy as np
from llvmlite import ir

from runtime.kernels.cpu.entry import kernel
from runtime.kernels.cpu.lowering import (
    FLOAT,
    INT64,
    LANES,
    VECTOR,
    first_mask,
    inlined,
    lane_numbers,
    load_unaligned,
    masked_load,
    masked_store,
    primitive,
    store_unaligned,
)
from runtime.kernels.cpu.target import host_target
from runtime.kernels.cpu.vector import (
    get,
    load_first,
    put,
    store_first,
)

PANEL = host_target().panel


def _transposed(builder: Any, rows: list[Any]) -> list[Any]:
    """Transpose `LANES` vectors by exchanging blocks of 1, 2, 4, ... lanes."""
    width = 1
    while width < LANES:
        low = [LANES + lane - width if lane & width else lane for lane in range(LANES)]
        high = [LANES + lane if lane & width else lane + width for lane in range(LANES)]
        for i in range(LANES):
            if not i & width:
                a, b = rows[i], rows[i + width]
                rows[i] = builder.shuffle_vector(a, b, lane_numbers(low))
                rows[i + width] = builder.shuffle_vector(a, b, lane_numbers(high))
        width *= 2
    return rows


def _place(builder: Any, address: Any, stride: Any, row: int) -> Any:
    base = builder.inttoptr(address, FLOAT.as_pointer())
    place = builder.gep(base, [builder.mul(stride, ir.Constant(INT64, row))])
    return builder.bitcast(place, VECTOR.as_pointer())


@primitive(NoneType, *[int] * 4)
def _transpose_block(
    builder: Any, source: Any, source_row: Any, result: Any, result_row: Any
) -> None:
    """Transpose `LANES` rows and columns."""
    rows = [
        load_unaligned(builder, _place(builder, source, source_row, r))
        for r in range(LANES)
    ]
    for r, row in enumerate(_transposed(builder, rows)):
        store_unaligned(builder, row, _place(builder, result, result_row, r))


@primitive(NoneType, *[int] * 7)
def _transpose_edge(
    builder: Any,
    source: Any,
    source_row: Any,
    result: Any,
    result_row: Any,
    rows: Any,
    columns: Any,
    stored: Any,
) -> None:
    """Transpose fewer rows and columns; see `transpose_matrix`."""
    nothing = ir.Constant(INT64, 0)

    def mask(row: int, rows: Any, count: Any) -> Any:
        inside = builder.icmp_signed("<", ir.Constant(INT64, row), rows)
        return first_mask(builder, builder.select(inside, count, nothing))

    values = [
        masked_load(
            builder, _place(builder, source, source_row, r), mask(r, rows, columns)
        )
        for r in range(LANES)
    ]
    for r, value in enumerate(_transposed(builder, values)):
        place = _place(builder, result, result_row, r)
        masked_store(builder, value, place, mask(r, columns, stored))


@inlined
def transpose_matrix(
    source: int,
    source_row: int,
    result: int,
    result_row: int,
    rows: int,
    columns: int,
    stored: int,
) -> None:
    """result[c, r] = source[r, c] for c < columns, r < rows; 0 up to r < stored."""
    for r in range(0, stored, LANES):
        for c in range(0, columns, LANES):
            x = source + 4 * (r * source_row + c)
            y = result + 4 * (c * result_row + r)
            if rows - r >= LANES and columns - c >= LANES:
                _transpose_block(x, source_row, y, result_row)
            else:
                # fmt: off
                _transpose_edge(x, source_row, y, result_row,
                                rows - r, columns - c, stored - r)
                # fmt: on


@kernel
def pack_panels(b: int, b_row: int, b_column: int, panels: int, k: int, n: int) -> None:
    """Matrix B[k, n] to panels [ceil(n / PANEL)][k][PANEL], filled up with zeros."""
    for j in range(0, n, PANEL):
        columns = min(PANEL, n - j)
        panel = panels + 4 * j * k
        x = b + 4 * j * b_column
        if b_column == 1:
            for p in range(k):
                for v in range(0, PANEL, LANES):
                    value = load_first(x, p * b_row + v, max(columns - v, 0))
                    store_first(panel, p * PANEL + v, value, LANES)
        elif b_row == 1:
            transpose_matrix(x, b_column, panel, PANEL, columns, k, PANEL)
        else:
            for p in range(k):
                for v in range(PANEL):
                    element = np.float32(0)
                    if v < columns:
                        element = get(x, p * b_row + v * b_column)
                    put(panel, p * PANEL + v, element)


@kernel
def to_image(
    x: int,
    y: int,
    y_image: int,
    y_row: int,
    y_pixel: int,
    images: int,
    channels: int,
    height: int,
    width: int,
) -> None:
    """Dense NCHW to an image tensor; its padding channels, if any, become zero."""
    plane = height * width
    if y_row == width * y_pixel:
        height, width = 1, plane
    for image in range(images):
        for h in range(height):
            source = x + 4 * (image * channels * plane + h * width)
            result = y + 4 * (image * y_image + h * y_row)
            if y_pixel == 1:
                for w in range(0, width, LANES):
                    pixels = load_first(source, w, width - w)
                    store_first(result, w, pixels, width - w)
            else:
                # fmt: off
                transpose_matrix(source, plane, result, y_pixel, channels, width,
                                 y_pixel)
                # fmt: on


@kernel
def from_image(
    x: int,
    x_image: int,
    x_row: int,
    x_pixel: int,
    y: int,
    images: int,
    channels: int,
    height: int,
    width: int,
) -> None:
    """Image tensor to dense NCHW."""
    plane = height * width
    if x_row == width * x_pixel:
        height, width = 1, plane
    for image in range(images):
        for h in range(height):
            source = x + 4 * (image * x_image + h * x_row)
            result = y + 4 * (image * channels * plane + h * width)
            transpose_matrix(source, x_pixel, result, plane, width, channels, width)
