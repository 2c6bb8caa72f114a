"""Sum of gradients and parameter update in one pass, a kernel for each rule.

The kernels are all made from one loop: a rule's vectors are loaded, computed and
stored. An element's result does not depend on where a run of elements begins or ends,
so that devices can share the work.

Next: `runtime.kernels.cpu.update_rules`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, get_args, get_type_hints

from runtime.kernels.cpu.entry import named_kernel
from runtime.kernels.cpu.tuples import rule_arguments, store_vectors, tuple_at
from runtime.kernels.cpu.update_rules import VECTOR_RULES
from runtime.kernels.cpu.vector import (
    LANES,
    Vector,
    get_integer,
    inlined,
    load_first,
)


@inlined
def summed(gradients: int, devices: int, i: int, count: int) -> Vector:
    """Sum of the devices' gradients, in order."""
    total = load_first(get_integer(gradients, 0), i, count)
    for device in range(1, devices):
        total = total + load_first(get_integer(gradients, device), i, count)
    return total


def _make(name: str, rule: Callable[..., Any]) -> Callable[..., None]:
    """Make and register the kernel that runs a rule over `size` elements.

    `tensors` is a table of the addresses of weight and states.
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

    def update(
        tensors: int, gradients: int, devices: int, size: int, hyper: int
    ) -> None:
        # Read before the loop, whose stores might change them for all that LLVM knows.
        places, scalars = places_of(tensors), scalars_of(hyper)
        whole = size - size % LANES
        for i in range(0, whole, LANES):
            g = summed(gradients, devices, i, LANES)
            store_all(places, i, step(*arguments(g, places, scalars, i, LANES)), LANES)
        if whole < size:
            rest = size - whole
            g = summed(gradients, devices, whole, rest)
            new = step(*arguments(g, places, scalars, whole, rest))
            store_all(places, whole, new, rest)

    return named_kernel(f"update_{name}", update)


UPDATES = {name: _make(name, rule) for name, rule in VECTOR_RULES.items()}
"""The kernels by their rules."""
