"""Matrix products: C = A @ B with B in panels, in register tiles."""

from __future__ import annotations

from runtime.kernels.cpu.entry import kernel
from runtime.kernels.cpu.layout import transpose_matrix
from runtime.kernels.cpu.lowering import (
    LANES,
    inlined,
)
from runtime.kernels.cpu.target import host_target
from runtime.kernels.cpu.tiles import (
    ADD_AFTER_EPILOGUE,
    ADD_BEFORE_EPILOGUE,
    PANEL,
    REPLACE,
    ROWS_1,
    ROWS_2,
    even_share,
    finish_tile,
    load_row,
    multiply_rows,
    multiply_tile,
)
from runtime.kernels.cpu.vector import (
    get,
    load_first,
    splat,
    stack,
    store,
    store_first,
    zeros,
)

_CACHE_FLOATS = host_target().cache_bytes // 4
# Longest run of k in one pass: a panel of it and the rows of A it meets stay in cache.
_DEPTH = _CACHE_FLOATS // (4 * PANEL)

_FAR = 128
_COPY_FLOATS = 32768

# Rows whose sums are transposed together: whole tiles and whole vectors.
_TURNED = LANES * ROWS_2 // 2

_bias_row = stack(PANEL)
_sums = stack(_TURNED * PANEL)
_turned = stack(_TURNED * PANEL)
_copy_room = stack(_COPY_FLOATS)


@kernel
def gemm(
    a: int,
    a_row: int,
    a_column: int,
    panels: int,
    panel_size: int,
    panel_row: int,
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
    transposed: int,
) -> None:
    """C = epilogue(A @ B + bias) (+ C), or (A @ B) * gradient(mask) (+ C).

    Element (i, p) of A is at a + i * a_row + p * a_column; C's rows are contiguous.
    One panel of B comes `panel_size` floats after the other, and in it one row
    `panel_row` floats after the other: a B whose columns fill whole panels may be
    read where it lies.
    With `mask`, the activation's gradient is taken from its output mask[i, j].
    With `transposed`, C and mask hold their element (i, j) at [j, i], and bias
    belongs to i: then the larger of two factors need not be put into panels.
    """
    nonlinear = epilogue != 0 or mask != 0
    start = 0
    while start < k:
        depth = even_share(k - start, _DEPTH)
        if accumulate != 0 and nonlinear:
            depth = k  # C cannot hold partial sums beside what they are added to
        last = start + depth == k
        carry = REPLACE
        if start > 0:
            carry = ADD_BEFORE_EPILOGUE
        elif accumulate != 0:
            carry = ADD_AFTER_EPILOGUE if nonlinear else ADD_BEFORE_EPILOGUE
        _multiply(
            a + 4 * start * a_column,
            a_row,
            a_column,
            panels + 4 * start * panel_row,
            panel_size,
            panel_row,
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
            transposed,
        )
        start += depth


@inlined
def _multiply(
    a: int,
    a_row: int,
    a_column: int,
    panels: int,
    panel_size: int,
    panel_row: int,
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
    transposed: int,
) -> None:
    """One pass over a run of k."""
    bias_row = _bias_row()
    block = max(ROWS_2, _CACHE_FLOATS // 2 // k)
    if m * n > 2 * _CACHE_FLOATS:
        block = min(block, 4 * ROWS_2)  # few rows of C: few pages
    # Columns of a transposed A that are far apart displace each other in the
    # first-level cache; then a block of them is copied for all panels to read.
    copied = a_row == 1 and a_column >= _FAR and k >= _FAR // 4 and n >= 4 * PANEL
    fitting = _COPY_FLOATS // k // LANES * LANES
    if copied and fitting >= ROWS_2:
        block = min(block, fitting)
    else:
        copied = False
    room = _copy_room()
    first = 0
    while first < m:
        rows = even_share(m - first, block)
        x, x_column = a + 4 * first * a_row, a_column
        if copied:
            step = (rows + LANES - 1) // LANES * LANES
            _copy_runs(x, x_column, room, step, k, rows)
            x, x_column = room, step
        for j in range(0, n, PANEL):
            columns = n - j
            panel = panels + 4 * (j // PANEL) * panel_size
            width = LANES if columns <= LANES else PANEL
            if transposed != 0:
                offset = bias + 4 * first if bias != 0 else 0
                y = c + 4 * (j * c_row + first)
                z = mask + 4 * (j * mask_row + first) if mask != 0 else 0
                # fmt: off
                _multiply_transposed(rows, x, a_row, x_column, panel, panel_row, k,
                                     width, offset, y, c_row, min(columns, width),
                                     z, mask_row, epilogue, carry)
                # fmt: on
            else:
                load_row(bias_row, bias, j, columns)
                y = c + 4 * (first * c_row + j)
                z = mask + 4 * (first * mask_row + j) if mask != 0 else 0
                # fmt: off
                multiply_rows(rows, x, a_row, panel, panel_row, width,
                              1, 0, 0, 1, 0, k, x_column, bias, bias_row, y, c_row,
                              y, c_row, columns, columns, z, mask_row, epilogue, carry)
                # fmt: on
        first += rows


@inlined
def _multiply_transposed(
    m: int,
    a: int,
    a_row: int,
    a_column: int,
    panel: int,
    panel_row: int,
    k: int,
    width: int,
    bias: int,
    c: int,
    c_row: int,
    columns: int,
    mask: int,
    mask_row: int,
    epilogue: int,
    carry: int,
) -> None:
    """Compute `columns` columns of m rows from one panel, as rows of C."""
    sums, turned = _sums(), _turned()
    for start in range(0, m, _TURNED):
        count = min(_TURNED, m - start)
        i = 0
        while i < count:
            rows = even_share(count - i, ROWS_1 if width == LANES else ROWS_2)
            room = sums + 4 * i * PANEL
            for r in range(rows):
                value = zeros()
                if bias != 0:
                    value = splat(get(bias, start + i + r))
                for v in range(0, width, LANES):
                    store(room, r * PANEL + v, value)
            x = a + 4 * (start + i) * a_row
            # fmt: off
            multiply_tile(rows, x, a_row, panel, panel_row, width, 1, 0, 0, 1, 0, 0,
                          k, a_column, room, PANEL, room, PANEL, 0, 0)
            # fmt: on
            i += rows
        stored = (count + LANES - 1) // LANES * LANES
        transpose_matrix(sums, PANEL, turned, _TURNED, count, columns, stored)
        z = mask + 4 * start if mask != 0 else 0
        # fmt: off
        finish_tile(turned, _TURNED, c + 4 * start, c_row, c + 4 * start, c_row,
                    columns, count, count, z, mask_row, epilogue, carry)
        # fmt: on


@inlined
def _copy_runs(x: int, x_row: int, y: int, y_row: int, rows: int, length: int) -> None:
    """Copy `rows` contiguous runs."""
    for r in range(rows):
        for i in range(0, length, LANES):
            value = load_first(x, r * x_row + i, length - i)
            store_first(y, r * y_row + i, value, length - i)
