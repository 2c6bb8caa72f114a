"""Rows of register tiles, and what happens to their sums on the way out.

Matrix products and convolutions both compute m rows of one panel; they differ in
how a row's operands are reached.
"""

from __future__ import annotations

from runtime.kernels.cpu.activation import activate, activation_gradient, rectify
from runtime.kernels.cpu.lowering import (
    LANES,
    inlined,
)
from runtime.kernels.cpu.microkernel import tile
from runtime.kernels.cpu.table import Epilogue
from runtime.kernels.cpu.target import host_target
from runtime.kernels.cpu.tile_shapes import (
    ONE_VECTOR,
    ONE_VECTOR_THREE_TAPS,
    TWO_VECTORS,
)
from runtime.kernels.cpu.vector import (
    keep_first,
    load,
    load_first,
    stack,
    store,
    store_first,
    zeros,
)

PANEL = host_target().panel
ROWS_1 = ONE_VECTOR.max_rows
ROWS_2 = TWO_VECTORS.max_rows

TAPS = ONE_VECTOR_THREE_TAPS.taps

_tile_1 = tile(ONE_VECTOR)
_tile_1_taps = tile(ONE_VECTOR_THREE_TAPS)
_tile_2 = tile(TWO_VECTORS)
_tile_room = stack(ROWS_1 * PANEL)

# Whether the addend (most often what a result's place holds) is added, and when.
REPLACE = 0
ADD_BEFORE_EPILOGUE = 1
ADD_AFTER_EPILOGUE = 2


@inlined
def even_share(total: int, most: int) -> int:
    """First of the fewest equal shares of `total` that are not above `most`."""
    parts = (total + most - 1) // most
    return (total + parts - 1) // parts


@inlined
def load_row(row: int, source: int, index: int, count: int) -> None:
    """Fill one panel row with `count` floats at source[index] (0: none), then zeros."""
    for v in range(0, PANEL, LANES):
        if source == 0 or v >= count:
            store(row, v, zeros())
        else:
            store(row, v, load_first(source, index + v, count - v))


@inlined
def multiply_tile(
    rows: int,
    a: int,
    a_row: int,
    b: int,
    step: int,
    width: int,
    n0: int,
    a0: int,
    b0: int,
    n1: int,
    a1: int,
    b1: int,
    n2: int,
    a2: int,
    init: int,
    init_row: int,
    out: int,
    out_row: int,
    more: int,
    rectified: int,
) -> None:
    """Compute one tile; see `microkernel`. The steps of b in n2 are `step`."""
    # fmt: off
    if width == LANES and n1 == TAPS and a1 == a_row:
        _tile_1_taps(rows, a, a_row, b, n0, a0, b0, n1, a1, b1, n2, a2, step,
                     init, init_row, out, out_row, more, rectified, width)
    elif width == LANES:
        _tile_1(rows, a, a_row, b, n0, a0, b0, n1, a1, b1, n2, a2, step,
                init, init_row, out, out_row, more, rectified, width)
    else:
        _tile_2(rows, a, a_row, b, n0, a0, b0, n1, a1, b1, n2, a2, step,
                init, init_row, out, out_row, more, rectified, width)
    # fmt: on


@inlined
def multiply_rows(
    m: int,
    a: int,
    a_row: int,
    panel: int,
    step: int,
    width: int,
    n0: int,
    a0: int,
    b0: int,
    n1: int,
    a1: int,
    n2: int,
    a2: int,
    bias: int,
    bias_row: int,
    addend: int,
    addend_row: int,
    c: int,
    c_row: int,
    columns: int,
    stored: int,
    mask: int,
    mask_row: int,
    epilogue: int,
    carry: int,
) -> None:
    """Compute `width` columns (one or two vectors) of m rows from one panel.

    A row's operands are reached by the loops (n0, a0), (n1, a1), (n2, a2), see
    `microkernel`; the panel's rows, `step` floats apart, follow them in this order,
    `b0` floats apart in the first.
    `bias_row` holds `width` floats that the sums begin with; `bias` is 0 if they are
    zeros. Columns up to `stored` are written, those from `columns` on (which the panel
    and the addend have as zeros) as zeros. `addend` is what `carry` says to add, most
    often c. With `mask`, the result is multiplied by the activation's gradient at
    it instead of being activated.
    """
    room = _tile_room()
    direct = stored >= width and carry != ADD_AFTER_EPILOGUE
    rectified = direct and epilogue == Epilogue.RELU and mask == 0
    finished = direct and mask == 0 and (epilogue == Epilogue.NONE or rectified)
    most = ROWS_1 if width == LANES else ROWS_2
    b1 = n2 * step
    i = 0
    while i < m:
        rows = even_share(m - i, most)
        x = a + 4 * i * a_row
        y = c + 4 * i * c_row
        added = addend + 4 * i * addend_row
        init, init_row, out, out_row, more = bias_row, 0, room, PANEL, 0
        if direct:
            out, out_row = y, c_row
            if carry == ADD_BEFORE_EPILOGUE:
                init, init_row = added, addend_row
                more = bias_row if bias != 0 else 0
        # fmt: off
        multiply_tile(rows, x, a_row, panel, step, width, n0, a0, b0, n1, a1, b1,
                      n2, a2, init, init_row, out, out_row, more,
                      1 if rectified else 0)
        if not finished:
            z = mask + 4 * i * mask_row if mask != 0 else 0
            again = REPLACE if direct else carry
            finish_tile(out, out_row, added, addend_row, y, c_row, rows,
                        min(columns, width), min(stored, width), z, mask_row,
                        epilogue, again)
        # fmt: on
        i += rows


@inlined
def finish_tile(
    source: int,
    source_row: int,
    addend: int,
    addend_row: int,
    c: int,
    c_row: int,
    rows: int,
    columns: int,
    stored: int,
    mask: int,
    mask_row: int,
    epilogue: int,
    carry: int,
) -> None:
    """Write a tile's sums to their place, through the epilogue."""
    if mask == 0 and carry == REPLACE and epilogue <= Epilogue.RELU:
        for r in range(rows):
            for v in range(0, stored, LANES):
                value = load(source, r * source_row + v)
                if epilogue == Epilogue.RELU:
                    value = rectify(value)
                if columns - v < LANES:
                    value = keep_first(value, columns - v)
                store_first(c, r * c_row + v, value, stored - v)
        return
    for r in range(rows):
        for v in range(0, stored, LANES):
            value = load(source, r * source_row + v)
            place = r * addend_row + v
            if carry == ADD_BEFORE_EPILOGUE:
                value = value + load_first(addend, place, stored - v)
            if mask != 0:
                y = load_first(mask, r * mask_row + v, columns - v)
                value = value * activation_gradient(y, epilogue)
            else:
                value = activate(value, epilogue)
            if columns - v < LANES:
                value = keep_first(value, columns - v)
            if carry == ADD_AFTER_EPILOGUE:
                value = value + load_first(addend, place, stored - v)
            store_first(c, r * c_row + v, value, stored - v)
