"""The update rules over vectors: what `runtime.ops.updates` defines over arrays.

A rule takes the summed gradient, the weight, the states and the scalars, and returns
the new weight and states. The operations are those of the definition, in its order, so
that both give the same bits. Scalars are float64 and are rounded where they meet a
vector, by `number`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from runtime.kernels.cpu.lowering import (
    Vector,
    inlined,
)
from runtime.kernels.cpu.vector import (
    absolute,
    larger,
    splat,
    square_roots,
    where_at_most,
    where_equal,
    where_less,
    zeros,
)

One = tuple[Vector]
Two = tuple[Vector, Vector]
Three = tuple[Vector, Vector, Vector]
Four = tuple[Vector, Vector, Vector, Vector]


@inlined
def number(value: float) -> Vector:
    """A scalar as float32, in every lane."""
    return splat(np.float32(value))


@inlined
def clipped(values: Vector, bound: float) -> Vector:
    """Values cut off at plus and minus the bound; a negative bound means none."""
    high = number(bound if bound >= 0.0 else np.inf)
    low = number(-bound if bound >= 0.0 else -np.inf)
    values = where_less(values, low, low, values)
    return where_less(high, values, high, values)


@inlined
def rescaled(g: Vector, rescale: float, clip: float) -> Vector:
    """clip(rescale * gradient)."""
    return clipped(number(rescale) * g, clip)


@inlined
def decayed(g: Vector, w: Vector, wd: float, rescale: float, clip: float) -> Vector:
    """clip(rescale * gradient + wd * weight)."""
    return clipped(number(rescale) * g + number(wd) * w, clip)


@inlined
def running(old: Vector, new: Vector, share: float) -> Vector:
    """share * old + (1 - share) * new."""
    return number(share) * old + number(1.0 - share) * new


@inlined
def sign(a: Vector) -> Vector:
    """-1, 0 or 1; NaN stays."""
    positive = where_less(zeros(), a, number(1.0), where_equal(a, zeros(), zeros(), a))
    return where_less(a, zeros(), number(-1.0), positive)


# Along the gradient ---------------------------------------------------------


@inlined
def sgd_plain(
    g: Vector,
    w: Vector,
    lr: float,
    wd: float,
    rescale: float,
    clip: float,
    momentum: float,
) -> One:
    g = rescaled(g, rescale, clip)
    return (number(1.0 - lr * wd) * w - number(lr) * g,)


@inlined
def sgd(
    g: Vector,
    w: Vector,
    velocity: Vector,
    lr: float,
    wd: float,
    rescale: float,
    clip: float,
    momentum: float,
) -> Two:
    g = rescaled(g, rescale, clip)
    velocity = number(momentum) * velocity - number(lr) * (g + number(wd) * w)
    return w + velocity, velocity


def nag(
    g: Vector,
    w: Vector,
    velocity: Vector,
    lr: float,
    wd: float,
    rescale: float,
    clip: float,
    momentum: float,
) -> Two:
    g = rescaled(g, rescale, clip)
    kept = number(momentum) * velocity
    ahead = kept - number(lr) * (g + number(wd) * w)
    moved = w - kept + number(1.0 + momentum) * ahead
    return moved, kept - number(lr) * (g + number(wd) * moved)


def signum_plain(
    g: Vector,
    w: Vector,
    lr: float,
    wd: float,
    rescale: float,
    clip: float,
    momentum: float,
    wd_lh: float,
) -> One:
    return (number(1.0 - lr * wd) * w - number(lr) * sign(g),)


def signum(
    g: Vector,
    w: Vector,
    velocity: Vector,
    lr: float,
    wd: float,
    rescale: float,
    clip: float,
    momentum: float,
    wd_lh: float,
) -> Two:
    g = rescaled(g, rescale, clip) + number(wd) * w
    velocity = number(momentum) * velocity - number(1.0 - momentum) * g
    return number(1.0 - lr * wd_lh) * w + number(lr) * sign(velocity), velocity


def dcasgd(
    g: Vector,
    w: Vector,
    last: Vector,
    lr: float,
    wd: float,
    rescale: float,
    clip: float,
    momentum: float,
    curvature: float,
) -> Two:
    g = rescaled(g, rescale, clip)
    delay = number(curvature) * g * g * last
    step = number(momentum) * last - number(lr) * (g + number(wd) * w + delay)
    return w + step, step


# By running means -----------------------------------------------------------


def adam(
    g: Vector,
    w: Vector,
    mean: Vector,
    variance: Vector,
    lr: float,
    wd: float,
    rescale: float,
    clip: float,
    beta1: float,
    beta2: float,
    epsilon: float,
) -> Three:
    g = decayed(g, w, wd, rescale, clip)
    mean = running(mean, g, beta1)
    variance = running(variance, g * g, beta2)
    step = number(lr) * mean / (square_roots(variance) + number(epsilon))
    return w - step, mean, variance


def adamax(
    g: Vector,
    w: Vector,
    mean: Vector,
    largest: Vector,
    lr: float,
    wd: float,
    rescale: float,
    clip: float,
    beta1: float,
    beta2: float,
) -> Three:
    g = decayed(g, w, wd, rescale, clip)
    mean = running(mean, g, beta1)
    largest = larger(number(beta2) * largest, absolute(g))
    ratio = where_equal(largest, zeros(), zeros(), mean / largest)
    return w - number(lr) * ratio, mean, largest


def nadam(
    g: Vector,
    w: Vector,
    mean: Vector,
    variance: Vector,
    lr: float,
    wd: float,
    rescale: float,
    clip: float,
    beta1: float,
    beta2: float,
    epsilon: float,
    momentum: float,
    next_momentum: float,
    product: float,
    correction: float,
) -> Three:
    g = decayed(g, w, wd, rescale, clip)
    mean = running(mean, g, beta1)
    variance = running(variance, g * g, beta2)
    ahead = number((1.0 - momentum) / (1.0 - product)) * g
    ahead = ahead + number(next_momentum / (1.0 - product * next_momentum)) * mean
    scale = square_roots(variance / number(correction)) + number(epsilon)
    return w - number(lr) * ahead / scale, mean, variance


def ftml(
    g: Vector,
    w: Vector,
    last: Vector,
    variance: Vector,
    leader: Vector,
    lr: float,
    wd: float,
    rescale: float,
    clip: float,
    beta1: float,
    beta2: float,
    epsilon: float,
    correction1: float,
    correction2: float,
) -> Four:
    if lr == 0.0:
        return w, last, variance, leader
    g = decayed(g, w, wd, rescale, clip)
    variance = running(variance, g * g, beta2)
    root = square_roots(variance / number(correction2)) + number(epsilon)
    scale = number(correction1 / lr) * root
    leader = running(leader, g, beta1) - (scale - number(beta1) * last) * w
    return number(-1.0) * leader / scale, scale, variance, leader


# By the squares so far ------------------------------------------------------


def adagrad(
    g: Vector,
    w: Vector,
    history: Vector,
    lr: float,
    wd: float,
    rescale: float,
    clip: float,
    epsilon: float,
) -> Two:
    g = rescaled(g, rescale, clip)
    history = history + g * g
    step = g / square_roots(history + number(epsilon)) + number(wd) * w
    return w - number(lr) * step, history


def adadelta(
    g: Vector,
    w: Vector,
    gradients: Vector,
    steps: Vector,
    lr: float,
    wd: float,
    rescale: float,
    clip: float,
    rho: float,
    epsilon: float,
) -> Three:
    g = rescaled(g, rescale, clip)
    gradients = running(gradients, g * g, rho)
    step = square_roots(steps + number(epsilon))
    step = step / square_roots(gradients + number(epsilon)) * g
    steps = running(steps, step * step, rho)
    return w - (step + number(wd) * w), gradients, steps


def rmsprop(
    g: Vector,
    w: Vector,
    squares: Vector,
    lr: float,
    wd: float,
    rescale: float,
    clip: float,
    gamma1: float,
    epsilon: float,
    clip_weights: float,
) -> Two:
    g = decayed(g, w, wd, rescale, clip)
    squares = running(squares, g * g, gamma1)
    step = number(lr) * g / square_roots(squares + number(epsilon))
    return clipped(w - step, clip_weights), squares


def rmsprop_centered(
    g: Vector,
    w: Vector,
    squares: Vector,
    mean: Vector,
    step: Vector,
    lr: float,
    wd: float,
    rescale: float,
    clip: float,
    gamma1: float,
    gamma2: float,
    epsilon: float,
    clip_weights: float,
) -> Four:
    g = decayed(g, w, wd, rescale, clip)
    squares = running(squares, g * g, gamma1)
    mean = running(mean, g, gamma1)
    scale = square_roots(squares - mean * mean + number(epsilon))
    step = number(gamma2) * step - number(lr) * g / scale
    return clipped(w + step, clip_weights), squares, mean, step


def ftrl(
    g: Vector,
    w: Vector,
    leader: Vector,
    squares: Vector,
    lr: float,
    wd: float,
    rescale: float,
    clip: float,
    lamda1: float,
    beta: float,
) -> Three:
    if lr == 0.0:
        return w, leader, squares
    g = rescaled(g, rescale, clip)
    total = squares + g * g
    growth = square_roots(total) - square_roots(squares)
    leader = leader + g - growth * w / number(lr)
    damping = (number(beta) + square_roots(total)) / number(lr) + number(wd)
    moved = (sign(leader) * number(lamda1) - leader) / damping
    moved = where_at_most(absolute(leader), number(lamda1), zeros(), moved)
    return moved, leader, total


# By norms -------------------------------------------------------------------


@inlined
def lamb_step(
    w: Vector,
    mean: Vector,
    variance: Vector,
    wd: float,
    epsilon: float,
    correction1: float,
    correction2: float,
) -> Vector:
    """The step of LAMB before it is scaled; the means are the new ones."""
    root = square_roots(variance / number(correction2)) + number(epsilon)
    return mean / number(correction1) / root + number(wd) * w


def lamb(
    g: Vector,
    w: Vector,
    mean: Vector,
    variance: Vector,
    lr: float,
    wd: float,
    rescale: float,
    clip: float,
    beta1: float,
    beta2: float,
    epsilon: float,
    correction1: float,
    correction2: float,
    lower: float,
    upper: float,
) -> One:
    """After `measure_lamb`: the means are the new ones, lr holds the trust ratio."""
    step = lamb_step(w, mean, variance, wd, epsilon, correction1, correction2)
    return (w - number(lr) * step,)


def lbsgd_plain(
    g: Vector,
    w: Vector,
    collected: Vector,
    lr: float,
    wd: float,
    rescale: float,
    clip: float,
    momentum: float,
    batch_scale: float,
    due: float,
    adapts: float,
) -> Two:
    """After `measure_lbsgd`, as `lbsgd`: lr follows the norms already."""
    total = collected + g
    if due == 0.0:
        return w, total
    mean = total / number(batch_scale)
    return sgd_plain(mean, w, lr, wd, rescale, clip, momentum)[0], zeros()


def lbsgd(
    g: Vector,
    w: Vector,
    collected: Vector,
    velocity: Vector,
    lr: float,
    wd: float,
    rescale: float,
    clip: float,
    momentum: float,
    batch_scale: float,
    due: float,
    adapts: float,
) -> Three:
    total = collected + g
    if due == 0.0:
        return w, total, velocity
    mean = total / number(batch_scale)
    w, velocity = sgd(mean, w, velocity, lr, wd, rescale, clip, momentum)
    return w, zeros(), velocity


VECTOR_RULES: dict[str, Callable[..., Any]] = {
    "sgd": sgd,
    "sgd_plain": sgd_plain,
    "nag": nag,
    "nag_plain": sgd_plain,
    "signum": signum,
    "signum_plain": signum_plain,
    "dcasgd": dcasgd,
    "adam": adam,
    "adamax": adamax,
    "nadam": nadam,
    "ftml": ftml,
    "adagrad": adagrad,
    "adadelta": adadelta,
    "rmsprop": rmsprop,
    "rmsprop_centered": rmsprop_centered,
    "ftrl": ftrl,
    "lamb": lamb,
    "lbsgd": lbsgd,
    "lbsgd_plain": lbsgd_plain,
}
"""By the names in `runtime.kernels.cpu.table.UPDATE_RULES`."""
