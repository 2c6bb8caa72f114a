"""Lazy updates: of the rows that row-sparse gradients have, and of no others.

A gradient's rows are int64: how many there are, then their numbers, which increase.
`share_rows` writes which rows of the sum are a device's share; a kernel `lazy_<rule>`
runs the dense kernel of its rule on each of them.
"""

from __future__ import annotations

from collections.abc import Callable

from runtime.kernels.cpu.entry import kernel, named_kernel
from runtime.kernels.cpu.lowering import inlined
from runtime.kernels.cpu.table import LAZY_RULES
from runtime.kernels.cpu.update import UPDATES
from runtime.kernels.cpu.update_groups import update_groupadagrad
from runtime.kernels.cpu.vector import (
    get_integer,
    put_integer,
)

_BEHIND_ALL = 2**63 - 1


@inlined
def place_of(rows: int, number: int) -> int:
    """How many rows of a gradient have smaller numbers."""
    low, high = 0, get_integer(rows, 0)
    while low < high:
        middle = (low + high) >> 1
        if get_integer(rows, 1 + middle) < number:
            low = middle + 1
        else:
            high = middle
    return low


@inlined
def share_begin(rows: int, part: int, parts: int) -> int:
    """The row number at which a share begins: shares of the first gradient's rows."""
    count = get_integer(rows, 0)
    if part == 0:
        return 0
    if part == parts or count == 0:
        return _BEHIND_ALL
    return get_integer(rows, 1 + count * part // parts)


@kernel
def share_rows(
    gradient_rows: int, devices: int, part: int, parts: int, numbers: int, scratch: int
) -> None:
    """The numbers of a share of the rows that any of the gradients has.

    `scratch` is a word for each gradient.
    """
    first = get_integer(gradient_rows, 0)
    begin, end = share_begin(first, part, parts), share_begin(first, part + 1, parts)
    for device in range(devices):
        put_integer(
            scratch, device, place_of(get_integer(gradient_rows, device), begin)
        )
    count, number = 0, begin
    while number < end:
        number = end
        for device in range(devices):
            rows, at = get_integer(gradient_rows, device), get_integer(scratch, device)
            if at < get_integer(rows, 0) and get_integer(rows, 1 + at) < number:
                number = get_integer(rows, 1 + at)
        if number < end:
            count += 1
            put_integer(numbers, count, number)
        for device in range(devices):
            rows, at = get_integer(gradient_rows, device), get_integer(scratch, device)
            if at < get_integer(rows, 0) and get_integer(rows, 1 + at) == number:
                put_integer(scratch, device, at + 1)
    put_integer(numbers, 0, count)


def _make(name: str, update: Callable[..., None]) -> None:
    """Register the kernel that runs another one, of its own arguments, on some rows.

    `kept` is how many `tensors` there are; `scratch` is two words for each gradient and
    one for each tensor.
    """

    def lazy(
        tensors: int,
        kept: int,
        gradient_rows: int,
        gradient_values: int,
        devices: int,
        columns: int,
        hyper: int,
        numbers: int,
        scratch: int,
    ) -> None:
        gradients, places = scratch + 8 * devices, scratch + 16 * devices
        count = get_integer(numbers, 0)
        for device in range(devices):
            rows = get_integer(gradient_rows, device)
            begin = place_of(rows, get_integer(numbers, 1)) if count > 0 else 0
            put_integer(scratch, device, begin)
        for n in range(1, count + 1):
            number, having = get_integer(numbers, n), 0
            for device in range(devices):
                rows = get_integer(gradient_rows, device)
                at = get_integer(scratch, device)
                if at < get_integer(rows, 0) and get_integer(rows, 1 + at) == number:
                    values = get_integer(gradient_values, device)
                    put_integer(gradients, having, values + 4 * columns * at)
                    put_integer(scratch, device, at + 1)
                    having += 1
            for k in range(kept):
                whole = get_integer(tensors, k)
                put_integer(places, k, whole + 4 * columns * number)
            update(places, gradients, having, columns, hyper)

    named_kernel(f"lazy_{name}", lazy)


@inlined
def group_of_one_row(
    tensors: int, gradients: int, devices: int, size: int, hyper: int
) -> None:
    """`update_groupadagrad` of a matrix with one row."""
    update_groupadagrad(tensors, gradients, devices, size, hyper, size)


_DENSE = {**UPDATES, "groupadagrad": group_of_one_row}
for _name in LAZY_RULES:
    _make(_name, _DENSE[_name])
