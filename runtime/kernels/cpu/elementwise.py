"""Kernels over strided runs: activations, add, copy, fill, scaled add."""

from __future__ import annotations

import numpy as np

from runtime.kernels.cpu.activation import activate, activation_gradient
from runtime.kernels.cpu.entry import kernel
from runtime.kernels.cpu.lowering import LANES
from runtime.kernels.cpu.table import WithNumber
from runtime.kernels.cpu.vector import (
    fill_bytes,
    fma,
    load_first,
    splat,
    store_first,
    zeros,
)

# Plain numbers, which compiled code can hold.
_PLUS, _MINUS, _FROM = (
    int(kind) for kind in (WithNumber.PLUS, WithNumber.MINUS, WithNumber.FROM)
)


@kernel
def activation(
    x: int,
    x_outer: int,
    x_middle: int,
    y: int,
    y_outer: int,
    y_middle: int,
    outer: int,
    middle: int,
    inner: int,
    epilogue: int,
) -> None:
    """y = activation(x)."""
    for o in range(outer):
        for m in range(middle):
            a = x + 4 * (o * x_outer + m * x_middle)
            b = y + 4 * (o * y_outer + m * y_middle)
            for i in range(0, inner, LANES):
                value = load_first(a, i, inner - i)
                store_first(b, i, activate(value, epilogue), inner - i)


@kernel
def activation_backward(
    dy: int,
    dy_outer: int,
    dy_middle: int,
    y: int,
    y_outer: int,
    y_middle: int,
    dx: int,
    dx_outer: int,
    dx_middle: int,
    outer: int,
    middle: int,
    inner: int,
    epilogue: int,
) -> None:
    """dx = dy * (gradient of the activation whose output is y)."""
    for o in range(outer):
        for m in range(middle):
            a = dy + 4 * (o * dy_outer + m * dy_middle)
            b = y + 4 * (o * y_outer + m * y_middle)
            c = dx + 4 * (o * dx_outer + m * dx_middle)
            for i in range(0, inner, LANES):
                count = inner - i
                factor = activation_gradient(load_first(b, i, count), epilogue)
                store_first(c, i, load_first(a, i, count) * factor, count)


@kernel
def add(
    a: int,
    a_outer: int,
    a_middle: int,
    b: int,
    b_outer: int,
    b_middle: int,
    y: int,
    y_outer: int,
    y_middle: int,
    outer: int,
    middle: int,
    inner: int,
) -> None:
    """y = a + b."""
    for o in range(outer):
        for m in range(middle):
            p = a + 4 * (o * a_outer + m * a_middle)
            q = b + 4 * (o * b_outer + m * b_middle)
            r = y + 4 * (o * y_outer + m * y_middle)
            for i in range(0, inner, LANES):
                count = inner - i
                total = load_first(p, i, count) + load_first(q, i, count)
                store_first(r, i, total, count)


@kernel
def multiply(
    a: int,
    a_outer: int,
    a_middle: int,
    b: int,
    b_outer: int,
    b_middle: int,
    y: int,
    y_outer: int,
    y_middle: int,
    outer: int,
    middle: int,
    inner: int,
) -> None:
    """y = a * b."""
    for o in range(outer):
        for m in range(middle):
            p = a + 4 * (o * a_outer + m * a_middle)
            q = b + 4 * (o * b_outer + m * b_middle)
            r = y + 4 * (o * y_outer + m * y_middle)
            for i in range(0, inner, LANES):
                count = inner - i
                product = load_first(p, i, count) * load_first(q, i, count)
                store_first(r, i, product, count)


@kernel
def with_number(x: int, y: int, n: int, kind: int, number: float) -> None:
    """y = x + number, or another of `table.WithNumber`."""
    other = splat(np.float32(number))
    for i in range(0, n, LANES):
        value = load_first(x, i, n - i)
        if kind == _PLUS:
            value = value + other
        elif kind == _MINUS:
            value = value - other
        elif kind == _FROM:
            value = other - value
        else:
            value = value * other
        store_first(y, i, value, n - i)


@kernel
def copy(
    x: int,
    x_outer: int,
    x_middle: int,
    y: int,
    y_outer: int,
    y_middle: int,
    outer: int,
    middle: int,
    inner: int,
) -> None:
    """y = x."""
    for o in range(outer):
        for m in range(middle):
            a = x + 4 * (o * x_outer + m * x_middle)
            b = y + 4 * (o * y_outer + m * y_middle)
            for i in range(0, inner, LANES):
                store_first(b, i, load_first(a, i, inner - i), inner - i)


@kernel
def fill(y: int, bytes: int) -> None:
    """Zero `bytes` bytes."""
    fill_bytes(y, bytes)


@kernel
def scale_add(x: int, y: int, n: int, alpha: float) -> None:
    """y += alpha * x."""
    factor = splat(np.float32(alpha))
    for i in range(0, n, LANES):
        total = fma(factor, load_first(x, i, n - i), load_first(y, i, n - i))
        store_first(y, i, total, n - i)


@kernel
def column_sums(x: int, x_row: int, sums: int, m: int, n: int, accumulate: int) -> None:
    """Sums over the rows of a matrix (+ what `sums` holds)."""
    for j in range(0, n, LANES):
        count = n - j
        total = load_first(sums, j, count) if accumulate != 0 else zeros()
        odd = zeros()
        i = 0
        while i + 1 < m:
            total = total + load_first(x, i * x_row + j, count)
            odd = odd + load_first(x, (i + 1) * x_row + j, count)
            i += 2
        if i < m:
            total = total + load_first(x, i * x_row + j, count)
        store_first(sums, j, total + odd, count)


@kernel
def set_value(y: int, count: int, value: float) -> None:
    """y = value, dense."""
    one = splat(np.float32(value))
    for i in range(0, count, LANES):
        store_first(y, i, one, count - i)
