"""AdaGrad with one scale per row of a matrix."""

from __future__ import annotations

from runtime.kernels.cpu.entry import kernel
from runtime.kernels.cpu.lowering import LANES
from runtime.kernels.cpu.update import summed
from runtime.kernels.cpu.update_rules import number, rescaled
from runtime.kernels.cpu.vector import (
    get_double,
    get_integer,
    load_first,
    square_roots,
    square_sum,
    store_first,
)


@kernel
def update_groupadagrad(
    tensors: int, gradients: int, devices: int, size: int, hyper: int, columns: int
) -> None:
    """MXNet's GroupAdaGrad; a row's mean of squares is summed in float64."""
    weight, history = get_integer(tensors, 0), get_integer(tensors, 1)
    lr, rescale = get_double(hyper, 0), get_double(hyper, 2)
    clip, epsilon = get_double(hyper, 3), get_double(hyper, 4)
    for row in range(0, size, columns):
        end = row + columns
        total = 0.0
        for i in range(row, end, LANES):
            g = summed(gradients, devices, i, end - i)
            total += square_sum(rescaled(g, rescale, clip))
        mean = number(total / columns)
        for i in range(row, end, LANES):
            count = end - i
            g = rescaled(summed(gradients, devices, i, count), rescale, clip)
            h = load_first(history, i, count) + mean
            step = number(lr) * g / square_roots(h + number(epsilon))
            store_first(weight, i, load_first(weight, i, count) - step, count)
            store_first(history, i, h, count)
