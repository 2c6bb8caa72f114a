"""float16 weights with float32 master copies: what goes before and after an update.

`update_widen` gives the update of a master a float32 gradient, the update is that of
any float32 weight, and `update_narrow` rounds the master to the weight.
"""

from __future__ import annotations

from runtime.kernels.cpu.entry import kernel
from runtime.kernels.cpu.vector import (
    LANES,
    get_integer,
    load_first,
    load_first_halves,
    rounded_to_halves,
    store_first,
    store_first_halves,
    where_equal,
)


@kernel
def update_widen(
    weight: int, master: int, gradients: int, devices: int, size: int, wide: int
) -> None:
    """Sum of the devices' gradients, in float16 after each; master follows weight."""
    for i in range(0, size, LANES):
        count = size - i
        w = load_first_halves(weight, i, count)
        m = load_first(master, i, count)
        store_first(master, i, where_equal(rounded_to_halves(m), w, m, w), count)
        total = load_first_halves(get_integer(gradients, 0), i, count)
        for device in range(1, devices):
            part = load_first_halves(get_integer(gradients, device), i, count)
            total = rounded_to_halves(total + part)
        store_first(wide, i, total, count)


@kernel
def update_narrow(master: int, weight: int, size: int) -> None:
    """weight = master, rounded."""
    for i in range(0, size, LANES):
        count = size - i
        store_first_halves(weight, i, load_first(master, i, count), count)
