"""Activations in vectors, and their gradients from their outputs.

Relative error is a few units in the last place; NaN stays NaN. The codes are
`table.Epilogue`.
"""

from __future__ import annotations

import numpy as np

from runtime.kernels.cpu.lowering import (
    Vector,
    inlined,
)
from runtime.kernels.cpu.vector import (
    absolute,
    copy_sign,
    fma,
    scale_by_power_of_two,
    splat,
    where_less,
    zeros,
)

_LOG2_E = np.float32(1.4426950408889634)
_LN2_HIGH = np.float32(0.693359375)  # few bits: its products are exact
_LN2_LOW = np.float32(-2.12194440e-4)
_ROUNDER = np.float32(12582912.0)  # 1.5 * 2**23: adding it rounds to an integer
_UNDERFLOW = np.float32(-87.3)
_ONE = np.float32(1.0)
_TWO = np.float32(2.0)

# (exp(r) - 1 - r) / r**2 on |r| <= ln(2) / 2
_EXP_2 = np.float32(5.0000001201e-1)
_EXP_3 = np.float32(1.6666665459e-1)
_EXP_4 = np.float32(4.1665795894e-2)
_EXP_5 = np.float32(8.3334519073e-3)
_EXP_6 = np.float32(1.3981999507e-3)
_EXP_7 = np.float32(1.9875691500e-4)

# 2 * atanh(s) = s * (2 + 2/3 s**2 + 2/5 s**4 + ...)
_ATANH = tuple(np.float32(2.0 / n) for n in (1, 3, 5, 7, 9, 11, 13, 15))


@inlined
def exponential(x: Vector) -> Vector:
    """exp(x) for x <= 0; below -87.3 it is 0."""
    y = where_less(x, splat(_UNDERFLOW), splat(_UNDERFLOW), x)
    shifted = fma(y, splat(_LOG2_E), splat(_ROUNDER))
    n = shifted - splat(_ROUNDER)
    r = fma(n, splat(-_LN2_HIGH), y)
    r = fma(n, splat(-_LN2_LOW), r)
    q = fma(splat(_EXP_7), r, splat(_EXP_6))
    q = fma(q, r, splat(_EXP_5))
    q = fma(q, r, splat(_EXP_4))
    q = fma(q, r, splat(_EXP_3))
    q = fma(q, r, splat(_EXP_2))
    p = fma(q, r * r, r) + splat(_ONE)
    return where_less(x, splat(_UNDERFLOW), zeros(), scale_by_power_of_two(p, shifted))


@inlined
def exponential_minus_one(x: Vector) -> Vector:
    """exp(x) - 1 for x <= 0, accurate near 0."""
    y = where_less(x, splat(_UNDERFLOW), splat(_UNDERFLOW), x)
    shifted = fma(y, splat(_LOG2_E), splat(_ROUNDER))
    n = shifted - splat(_ROUNDER)
    r = fma(n, splat(-_LN2_HIGH), y)
    r = fma(n, splat(-_LN2_LOW), r)
    q = fma(splat(_EXP_7), r, splat(_EXP_6))
    q = fma(q, r, splat(_EXP_5))
    q = fma(q, r, splat(_EXP_4))
    q = fma(q, r, splat(_EXP_3))
    q = fma(q, r, splat(_EXP_2))
    p = fma(q, r * r, r)
    power = scale_by_power_of_two(splat(_ONE), shifted)
    return fma(power, p, power - splat(_ONE))


@inlined
def rectify(x: Vector) -> Vector:
    """max(x, 0), NaN for NaN."""
    return where_less(x, zeros(), zeros(), x)


@inlined
def sigmoid(x: Vector) -> Vector:
    """1 / (1 + exp(-x))."""
    e = exponential(zeros() - absolute(x))
    r = splat(_ONE) / (splat(_ONE) + e)
    return where_less(x, zeros(), e * r, r)


@inlined
def hyperbolic_tangent(x: Vector) -> Vector:
    """tanh(x)."""
    e = exponential_minus_one(absolute(x) * splat(-_TWO))
    return copy_sign(e / (splat(_TWO) + e), x)


@inlined
def softrelu(x: Vector) -> Vector:
    """log(1 + exp(x))."""
    e = exponential(zeros() - absolute(x))
    s = e / (e + splat(_TWO))
    t = s * s
    q = fma(splat(_ATANH[7]), t, splat(_ATANH[6]))
    q = fma(q, t, splat(_ATANH[5]))
    q = fma(q, t, splat(_ATANH[4]))
    q = fma(q, t, splat(_ATANH[3]))
    q = fma(q, t, splat(_ATANH[2]))
    q = fma(q, t, splat(_ATANH[1]))
    q = fma(q, t, splat(_ATANH[0]))
    return fma(q, s, where_less(x, zeros(), zeros(), x))


@inlined
def activate(x: Vector, epilogue: int) -> Vector:
    """The activation with code `epilogue` of x."""
    if epilogue == 0:
        return x
    if epilogue == 1:
        return rectify(x)
    if epilogue == 2:
        return sigmoid(x)
    if epilogue == 3:
        return hyperbolic_tangent(x)
    if epilogue == 4:
        return softrelu(x)
    return x / (splat(_ONE) + absolute(x))


@inlined
def activation_gradient(y: Vector, epilogue: int) -> Vector:
    """Derivative of the activation where its output is y."""
    one = splat(_ONE)
    if epilogue == 0:
        return one
    if epilogue == 1:
        return where_less(zeros(), y, one, zeros())
    if epilogue == 2:
        return y * (one - y)
    if epilogue == 3:
        return fma(zeros() - y, y, one)
    if epilogue == 4:
        return zeros() - exponential_minus_one(zeros() - y)
    rest = one - absolute(y)
    return rest * rest
