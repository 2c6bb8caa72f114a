"""Updates whose length follows from norms of a whole weight: what goes before them.

Each kernel here measures a weight and writes scalars with the right learning rate,
with which a kernel of `runtime.kernels.cpu.update` then updates it: `update_sgd` after
`measure_lars`, that of the same name after the others.
"""

from __future__ import annotations

from runtime.kernels.cpu.entry import kernel
from runtime.kernels.cpu.lowering import LANES
from runtime.kernels.cpu.update import summed
from runtime.kernels.cpu.update_rules import lamb_step, number, rescaled, running
from runtime.kernels.cpu.vector import (
    get_double,
    get_integer,
    keep_first,
    load_first,
    put_double,
    square_root,
    square_sum,
    store_first,
)


@kernel
def measure_lars(
    tensors: int, gradients: int, devices: int, size: int, hyper: int, scaled: int
) -> None:
    """Scalars of SGD (lr, wd, rescale, clip, momentum) with the weight's own rate."""
    for k in range(5):
        put_double(scaled, k, get_double(hyper, k))
    if get_double(hyper, 7) == 0.0:
        return
    weight = get_integer(tensors, 0)
    size_square, slope_square = 0.0, 0.0
    for i in range(0, size, LANES):
        w = load_first(weight, i, size - i)
        size_square += square_sum(w)
        slope_square += square_sum(summed(gradients, devices, i, size - i))
    rescale = get_double(hyper, 2)
    norm = square_root(size_square)
    slope = square_root(slope_square) * (rescale if rescale >= 0.0 else -rescale)
    if norm > 0.0 and slope > 0.0:
        lr, wd = get_double(hyper, 0), get_double(hyper, 1)
        eta, epsilon = get_double(hyper, 5), get_double(hyper, 6)
        put_double(scaled, 0, lr * (eta * norm / (slope + wd * norm + epsilon)))


@kernel
def measure_lbsgd(
    tensors: int, gradients: int, devices: int, size: int, hyper: int, scaled: int
) -> None:
    """LBSGD's scalars, with the weight's own rate in a step that updates."""
    for k in range(8):
        put_double(scaled, k, get_double(hyper, k))
    if get_double(hyper, 6) == 0.0 or get_double(hyper, 7) == 0.0:
        return
    weight, collected = get_integer(tensors, 0), get_integer(tensors, 1)
    batch_scale = number(get_double(hyper, 5))
    size_square, slope_square = 0.0, 0.0
    for i in range(0, size, LANES):
        count = size - i
        g = summed(gradients, devices, i, count)
        size_square += square_sum(load_first(weight, i, count))
        slope_square += square_sum((load_first(collected, i, count) + g) / batch_scale)
    lr, wd = get_double(hyper, 0), get_double(hyper, 1)
    growth = square_root(size_square / (slope_square + wd * size_square + 1e-18))
    if growth < 0.01:
        growth = 0.01
    if growth > 100.0:
        growth = 100.0
    put_double(scaled, 0, lr * growth)


@kernel
def measure_lamb(
    tensors: int, gradients: int, devices: int, size: int, hyper: int, scaled: int
) -> None:
    """Update the means; LAMB's scalars, with the trust ratio in lr."""
    weight, means = get_integer(tensors, 0), get_integer(tensors, 1)
    variances = get_integer(tensors, 2)
    wd, rescale, clip = get_double(hyper, 1), get_double(hyper, 2), get_double(hyper, 3)
    beta1, beta2 = get_double(hyper, 4), get_double(hyper, 5)
    epsilon = get_double(hyper, 6)
    correction1, correction2 = get_double(hyper, 7), get_double(hyper, 8)
    lower, upper = get_double(hyper, 9), get_double(hyper, 10)
    size_square, length_square = 0.0, 0.0
    for i in range(0, size, LANES):
        count = size - i
        g = rescaled(summed(gradients, devices, i, count), rescale, clip)
        w = load_first(weight, i, count)
        mean = running(load_first(means, i, count), g, beta1)
        variance = running(load_first(variances, i, count), g * g, beta2)
        store_first(means, i, mean, count)
        store_first(variances, i, variance, count)
        step = lamb_step(w, mean, variance, wd, epsilon, correction1, correction2)
        size_square += square_sum(w)
        length_square += square_sum(keep_first(step, count))
    norm, length = square_root(size_square), square_root(length_square)
    if lower >= 0.0 and norm < lower:
        norm = lower
    if upper >= 0.0 and norm > upper:
        norm = upper
    trust = norm / length if norm != 0.0 and length != 0.0 else 1.0
    for k in range(11):
        put_double(scaled, k, get_double(hyper, k))
    put_double(scaled, 0, get_double(hyper, 0) * trust)
