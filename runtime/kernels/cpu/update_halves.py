"""float16 weights with float32 master copies: what goes before and after an update.

`update_widen` gives the update of a master a float32 gradient, or `update_refine` lets
it use one that is there; the update is that of any float32 weight, and `update_narrow`
rounds the master to the weight.
"""

from __future__ import annotations

from runtime.kernels.cpu.entry import kernel
from runtime.kernels.cpu.lowering import (
    LANES,
    Vector,
    inlined,
)
from runtime.kernels.cpu.narrow import (
    load_first_halves,
    rounded_to_halves,
    store_first_halves,
)
from runtime.kernels.cpu.vector import (
    get_integer,
    load_first,
    store_first,
    where_equal,
)


@inlined
def refined(weight: int, master: int, i: int, count: int) -> Vector:
    """The master, or the weight where it was set to something else."""
    w = load_first_halves(weight, i, count)
    m = load_first(master, i, count)
    return where_equal(rounded_to_halves(m), w, m, w)


@kernel
def update_widen(
    weight: int, master: int, gradients: int, devices: int, size: int, wide: int
) -> None:
    """Sum of the devices' gradients, in float16 after each; master follows weight."""
    for i in range(0, size, LANES):
        count = size - i
        store_first(master, i, refined(weight, master, i, count), count)
        total = load_first_halves(get_integer(gradients, 0), i, count)
        for device in range(1, devices):
            part = load_first_halves(get_integer(gradients, device), i, count)
            total = rounded_to_halves(total + part)
        store_first(wide, i, total, count)


@kernel
def update_refine(weight: int, master: int, size: int) -> None:
    """The master follows the weight."""
    for i in range(0, size, LANES):
        count = size - i
        store_first(master, i, refined(weight, master, i, count), count)


@kernel
def update_narrow(weight: int, master: int, size: int) -> None:
    """weight = master, rounded."""
    for i in range(0, size, LANES):
        count = size - i
        store_first_halves(weight, i, load_first(master, i, count), count)
