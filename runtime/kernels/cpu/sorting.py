"""Numbers in order."""

from __future__ import annotations

from runtime.kernels.cpu.lowering import inlined
from runtime.kernels.cpu.vector import (
    get_integer,
    put_integer,
)


@inlined
def merge_sorted(numbers: int, spare: int, count: int) -> int:
    """Sort `count` int64 numbers, from run to longer run; where they lie then.

    `spare` is room for as many, and one of the two is the result.
    """
    run = 1
    while run < count:
        for begin in range(0, count, 2 * run):
            left, middle = begin, min(begin + run, count)
            right, end = middle, min(begin + 2 * run, count)
            for k in range(begin, end):
                takes_left = left < middle
                if takes_left and right < end:
                    takes_left = get_integer(numbers, left) <= get_integer(
                        numbers, right
                    )
                if takes_left:
                    put_integer(spare, k, get_integer(numbers, left))
                    left += 1
                else:
                    put_integer(spare, k, get_integer(numbers, right))
                    right += 1
        numbers, spare = spare, numbers
        run *= 2
    return numbers
