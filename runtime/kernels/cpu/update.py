"""Sum of gradients and parameter update in one pass, a kernel for each rule.

The kernels are all made from one loop: a rule's vectors are loaded, computed and
stored. An element's result does not depend on where a run of elements begins or ends,
so that devices can share the work.

A process that may be killed saves what it changes and nobody has saved yet. It does so
block by block, each just before the update that then finds it in the nearest cache.

Next: `runtime.kernels.cpu.update_rules`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, get_args, get_type_hints

from runtime.kernels.cpu.entry import named_kernel
from runtime.kernels.cpu.lowering import (
    LANES,
    Vector,
    inlined,
)
from runtime.kernels.cpu.threads import keep_order, read_shared, write_shared
from runtime.kernels.cpu.tuples import rule_arguments, store_vectors, tuple_at
from runtime.kernels.cpu.update_rules import VECTOR_RULES
from runtime.kernels.cpu.vector import (
    get_integer,
    load_first,
    prefetch_to_write,
    store_first,
)

BLOCK = 1024  # elements: with those of a gradient and a few states in the first cache
_ITEM_BYTES = 4


@inlined
def summed(gradients: int, devices: int, i: int, count: int) -> Vector:
    """Sum of the devices' gradients, in order."""
    total = load_first(get_integer(gradients, 0), i, count)
    for device in range(1, devices):
        total = total + load_first(get_integer(gradients, device), i, count)
    return total


@inlined
def save_block(
    tensors: int, copies: int, count: int, begin: int, end: int, saved: int, before: int
) -> None:
    """Copy elements of the tensors, then count them among the bytes that are safe."""
    for k in range(count):
        source, target = get_integer(tensors, k), get_integer(copies, k)
        for i in range(begin, end, LANES):
            prefetch_to_write(target, i + BLOCK)
            store_first(target, i, load_first(source, i, end - i), end - i)
    keep_order()
    write_shared(saved, before + _ITEM_BYTES * end)
    keep_order()


def _make(name: str, rule: Callable[..., Any]) -> Callable[..., None]:
    """Make and register the kernel that runs a rule over `size` elements.

    `tensors` is a table of the addresses of weight and states, `copies` one of where
    to save them; if that is 0, nothing is saved.

    Returns:
        What does the same without saving.
    """
    hints = get_type_hints(rule)
    results = len(get_args(hints.pop("return")))
    kinds = list(hints.values())
    read = kinds.count(Vector) - 1  # the gradient is summed
    places_of = tuple_at(int, read)
    scalars_of = tuple_at(float, kinds.count(float))
    arguments = rule_arguments(read, kinds.count(float))
    store_all = store_vectors(read, results)
    step = inlined(rule)

    @inlined
    def run(
        tensors: int, gradients: int, devices: int, begin: int, end: int, hyper: int
    ) -> None:
        # Read before the loop, whose stores might change them for all that LLVM knows.
        places, scalars = places_of(tensors), scalars_of(hyper)
        whole = end - (end - begin) % LANES
        for i in range(begin, whole, LANES):
            g = summed(gradients, devices, i, LANES)
            store_all(places, i, step(*arguments(g, places, scalars, i, LANES)), LANES)
        if whole < end:
            rest = end - whole
            g = summed(gradients, devices, whole, rest)
            new = step(*arguments(g, places, scalars, whole, rest))
            store_all(places, whole, new, rest)

    def update(
        tensors: int,
        gradients: int,
        devices: int,
        size: int,
        hyper: int,
        copies: int,
        saved: int,
        before: int,
    ) -> None:
        for begin in range(0, size, BLOCK):
            end = min(begin + BLOCK, size)
            if copies != 0 and read_shared(saved) < before + _ITEM_BYTES * end:
                save_block(tensors, copies, read, begin, end, saved, before)
            run(tensors, gradients, devices, begin, end, hyper)

    named_kernel(f"update_{name}", update)

    @inlined
    def update_alone(
        tensors: int, gradients: int, devices: int, size: int, hyper: int
    ) -> None:
        run(tensors, gradients, devices, 0, size, hyper)

    return update_alone


UPDATES = {name: _make(name, rule) for name, rule in VECTOR_RULES.items()}
"""By their rules, without saving."""
