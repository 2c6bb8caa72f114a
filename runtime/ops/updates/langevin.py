"""Steps with noise, that draw from a posterior instead of finding its top."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from runtime.ops.random import PhiloxSource
from runtime.ops.updates.rule import Array, Result, rescaled

Floats = NDArray[np.float32]


def sgld(
    weight: Array, gradient: Array, states: Sequence[Array], hyper: tuple[float, ...]
) -> Result:
    """MXNet `SGLD.update`: half a step, and normal noise of variance lr.

    The noise is a function of `seed`, `stream` (which parameter), `step` and the
    element's position, so that a step can be repeated.
    """
    lr, wd, rescale, clip, seed, stream, step = hyper
    source = PhiloxSource(int(seed), int(stream), int(step))
    normal = box_muller(*source.uniform((2, weight.size)))
    noise = math.sqrt(lr) * normal.astype(weight.dtype).reshape(weight.shape)
    g = rescaled(gradient, rescale, clip)
    return weight - lr / 2 * (g + wd * weight) + noise, ()


def box_muller(radius: Floats, angle: Floats) -> Floats:
    """Normal numbers from uniform ones in [0, 1), two for one.

    By series in float32, not by the mathematical library, whose last bits differ from
    one to the next: a kernel gives the same numbers.
    """
    return np.sqrt(-2 * _logarithm(1 - radius)) * _cosine_of_turn(angle)


_ATANH = tuple(2 / n for n in (9, 7, 5, 3, 1))
_SINE = tuple(
    (-1) ** k * math.tau ** (2 * k + 1) / math.factorial(2 * k + 1)
    for k in reversed(range(7))
)


def _logarithm(x: Floats) -> Floats:
    """log(m * 2**e), where log(m) is 2 * atanh((m - 1) / (m + 1)) and m is near 1."""
    half, exponent = np.frexp(x)
    small = half < np.float32(math.sqrt(0.5))
    m: Floats = np.where(small, half + half, half)
    e = (exponent - small).astype(np.float32)
    s = (m - 1) / (m + 1)
    return e * math.log(2) + _polynomial(_ATANH, s * s) * s


def _cosine_of_turn(x: Floats) -> Floats:
    """cos(2 pi x) for x in [0, 1)."""
    v: Floats = np.abs(x - 0.5) - 0.25  # exact; the sine of this turn
    return _polynomial(_SINE, v * v) * v


def _polynomial(coefficients: Sequence[float], x: Floats) -> Floats:
    """Horner's scheme; the coefficient of the highest power comes first."""
    total = np.full_like(x, coefficients[0])
    for coefficient in coefficients[1:]:
        total = total * x + coefficient
    return total
