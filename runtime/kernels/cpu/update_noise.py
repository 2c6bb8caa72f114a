"""SGLD: a step along the gradient, and normal noise.

The numbers are keyed by the element's position in the weight, which is why it is
updated whole. Operations and their order are those of `runtime.ops.updates.langevin`.
"""

from __future__ import annotations

import math

from runtime.kernels.cpu.entry import kernel
from runtime.kernels.cpu.lowering import (
    LANES,
    Vector,
    inlined,
)
from runtime.kernels.cpu.philox import uniform_numbers
from runtime.kernels.cpu.update import summed
from runtime.kernels.cpu.update_rules import number, rescaled
from runtime.kernels.cpu.vector import (
    absolute,
    exponents,
    get_double,
    get_integer,
    load_first,
    mantissas,
    square_root,
    square_roots,
    store_first,
    where_less,
)

_ATANH = tuple(2 / n for n in (9, 7, 5, 3, 1))
_SINE = tuple(
    (-1) ** k * math.tau ** (2 * k + 1) / math.factorial(2 * k + 1)
    for k in reversed(range(7))
)
_LN2 = math.log(2)
_HALF_ROOT = math.sqrt(0.5)


@inlined
def logarithm(x: Vector) -> Vector:
    """log(x) of normal positive numbers."""
    m, e = mantissas(x), exponents(x)
    small = number(_HALF_ROOT)
    e = where_less(m, small, e - number(1.0), e)
    m = where_less(m, small, m + m, m)
    s = (m - number(1.0)) / (m + number(1.0))
    t = s * s
    p = number(_ATANH[0])
    p = p * t + number(_ATANH[1])
    p = p * t + number(_ATANH[2])
    p = p * t + number(_ATANH[3])
    p = p * t + number(_ATANH[4])
    return e * number(_LN2) + p * s


@inlined
def cosine_of_turn(x: Vector) -> Vector:
    """cos(2 pi x) for x in [0, 1)."""
    v = absolute(x - number(0.5)) - number(0.25)  # exact; the sine of this turn
    t = v * v
    p = number(_SINE[0])
    p = p * t + number(_SINE[1])
    p = p * t + number(_SINE[2])
    p = p * t + number(_SINE[3])
    p = p * t + number(_SINE[4])
    p = p * t + number(_SINE[5])
    p = p * t + number(_SINE[6])
    return p * v


@inlined
def box_muller(radius: Vector, angle: Vector) -> Vector:
    """Normal numbers from uniform ones."""
    length = number(-2.0) * logarithm(number(1.0) - radius)
    return square_roots(length) * cosine_of_turn(angle)


@inlined
def step(
    weight: int,
    gradients: int,
    devices: int,
    i: int,
    count: int,
    hyper: int,
    radius: Vector,
    angle: Vector,
) -> None:
    """Update up to `LANES` elements from i on; none if `count` is not positive."""
    lr, wd = get_double(hyper, 0), get_double(hyper, 1)
    rescale, clip = get_double(hyper, 2), get_double(hyper, 3)
    w = load_first(weight, i, count)
    g = rescaled(summed(gradients, devices, i, count), rescale, clip)
    noise = number(square_root(lr)) * box_muller(radius, angle)
    moved = w - number(lr / 2) * (g + number(wd) * w) + noise
    store_first(weight, i, moved, count)


@kernel
def update_sgld(
    tensors: int, gradients: int, devices: int, size: int, hyper: int
) -> None:
    """MXNet's SGLD; seed, stream and step of the noise are the last scalars."""
    weight = get_integer(tensors, 0)
    seed, stream = int(get_double(hyper, 4)), int(get_double(hyper, 5))
    count = int(get_double(hyper, 6))
    for i in range(0, size, 4 * LANES):
        r = uniform_numbers(seed, stream, count, 0, i // 4)
        a = uniform_numbers(seed, stream, count, 1, i // 4)
        rest = size - i
        step(weight, gradients, devices, i, rest, hyper, r[0], a[0])
        i, rest = i + LANES, rest - LANES
        step(weight, gradients, devices, i, rest, hyper, r[1], a[1])
        i, rest = i + LANES, rest - LANES
        step(weight, gradients, devices, i, rest, hyper, r[2], a[2])
        i, rest = i + LANES, rest - LANES
        step(weight, gradients, devices, i, rest, hyper, r[3], a[3])
