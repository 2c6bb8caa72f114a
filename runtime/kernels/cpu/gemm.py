"""Matrix products: C = A @ B with B in panels, in register tiles."""

from __future__ import annotations

from runtime.kernels.cpu.activation import activate, activation_gradient
from runtime.kernels.cpu.entry import kernel
from runtime.kernels.cpu.microkernel import max_rows, tile
from runtime.kernels.cpu.target import host_target
from runtime.kernels.cpu.vector import (
    LANES,
    inlined,
    keep_first,
    load,
    load_first,
    stack,
    store,
    store_first,
    zeros,
)

PANEL = host_target().panel
_CACHE_FLOATS = host_target().cache_bytes // 4
# Longest run of k in one pass: a panel of it and the rows of A it meets stay in cache.
_DEPTH = _CACHE_FLOATS // (4 * PANEL)

_ROWS_1 = max_rows(1)
_ROWS_2 = max_rows(2)
_tile_1 = tile(1)
_tile_2 = tile(2)

_bias_row = stack(PANEL)
_tile_room = stack(_ROWS_1 * PANEL)


@inlined
def even_share(total: int, most: int) -> int:
    """First of the fewest equal shares of `total` that are not above `most`."""
    parts = (total + most - 1) // most
    return (total + parts - 1) // parts


@inlined
def load_row(row: int, source: int, index: int, count: int) -> None:
    """Fill one panel row with the first `count` floats at source (0: none)."""
    for v in range(0, PANEL, LANES):
        if source == 0 or v >= count:
            store(row, v, zeros())
        else:
            store(row, v, load_first(source, index + v, count - v))


@inlined
def finish_tile(
    source: int,
    source_row: int,
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
    """Write a tile's sums to C, through the epilogue.

    `carry` is 1 if C's value belongs to the sums, 2 if the result is added to it.
    Columns from `columns` to `stored` are set to zero.
    """
    for r in range(rows):
        for v in range(0, stored, LANES):
            value = load(source, r * source_row + v)
            place = r * c_row + v
            if carry == 1:
                value = value + load_first(c, place, stored - v)
            if mask != 0:
                y = load_first(mask, r * mask_row + v, columns - v)
                value = value * activation_gradient(y, epilogue)
            else:
                value = activate(value, epilogue)
            if carry == 2:
                value = value + load_first(c, place, stored - v)
            if columns < stored:
                value = keep_first(value, columns - v)
            store_first(c, place, value, stored - v)


@kernel
def gemm(
    a: int,
    a_row: int,
    a_column: int,
    panels: int,
    c: int,
    c_row: int,
    m: int,
    k: int,
    n: int,
    bias: int,
    mask: int,
    mask_row: int,
    epilogue: int,
    accumulate: int,
) -> None:
    """C = epilogue(A @ B + bias) (+ C), or (A @ B) * gradient(mask) (+ C).

    Element (i, p) of A is at a + i * a_row + p * a_column; C's rows are contiguous.
    With `mask`, the activation's gradient is taken from its output mask[i, j].
    """
    nonlinear = epilogue != 0 or mask != 0
    start = 0
    while start < k:
        depth = even_share(k - start, _DEPTH)
        if accumulate != 0 and nonlinear:
            depth = k  # C cannot hold partial sums beside what they are added to
        last = start + depth == k
        carry = 0
        if start > 0:
            carry = 1
        elif accumulate != 0:
            carry = 2 if nonlinear else 1
        _multiply(
            a + 4 * start * a_column,
            a_row,
            a_column,
            panels + 4 * start * PANEL,
            k * PANEL,
            c,
            c_row,
            m,
            depth,
            n,
            bias if start == 0 else 0,
            mask if last else 0,
            mask_row,
            epilogue if last else 0,
            carry,
        )
        start += depth


@inlined
def _multiply(
    a: int,
    a_row: int,
    a_column: int,
    panels: int,
    panel_size: int,
    c: int,
    c_row: int,
    m: int,
    k: int,
    n: int,
    bias: int,
    mask: int,
    mask_row: int,
    epilogue: int,
    carry: int,
) -> None:
    """One pass over a run of k."""
    nonlinear = epilogue != 0 or mask != 0
    bias_row = _bias_row()
    room = _tile_room()
    block = max(_ROWS_2, _CACHE_FLOATS // 2 // k)
    first = 0
    while first < m:
        end = first + even_share(m - first, block)
        for j in range(0, n, PANEL):
            columns = min(PANEL, n - j)
            panel = panels + 4 * (j // PANEL) * panel_size
            load_row(bias_row, bias, j, columns)
            direct = columns == PANEL and carry != 2 and (carry == 0 or bias == 0)
            most = _ROWS_1 if columns <= LANES else _ROWS_2
            i = first
            while i < end:
                rows = even_share(end - i, most)
                x = a + 4 * i * a_row
                y = c + 4 * (i * c_row + j)
                init, init_row, out, out_row = bias_row, 0, room, PANEL
                if direct:
                    out, out_row = y, c_row
                    if carry == 1:
                        init, init_row = y, c_row
                # fmt: off
                if columns <= LANES:
                    _tile_1(rows, x, a_row, panel, 1, 0, 0, 1, 0, 0, k, a_column, PANEL,
                            init, init_row, out, out_row, columns)
                else:
                    _tile_2(rows, x, a_row, panel, 1, 0, 0, 1, 0, 0, k, a_column, PANEL,
                            init, init_row, out, out_row, columns)
                # fmt: on
                if nonlinear or not direct:
                    z = mask + 4 * (i * mask_row + j) if mask != 0 else 0
                    again = 0 if direct else carry
                    # fmt: off
                    finish_tile(out, out_row, y, c_row, rows, columns, columns,
                                z, mask_row, epilogue, again)
                    # fmt: on
                i += rows
        first = end
