"""Steps whose length follows from the norms of a whole weight and its gradient."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from runtime.ops.updates.descent import sgd
from runtime.ops.updates.moments import running
from runtime.ops.updates.rule import Array, Result, rescaled, unchanged


def square_sum(values: Array) -> float:
    """The sum of squares, in float64."""
    flat = values.ravel().astype(np.float64)
    return float(flat @ flat)


def lars(
    weight: Array, gradient: Array, states: Sequence[Array], hyper: tuple[float, ...]
) -> Result:
    """MXNet `multi_lars`, then SGD; `adapts` says whether this weight's rate does."""
    lr, wd, rescale, clip, momentum, eta, epsilon, adapts = hyper
    if adapts:
        size = math.sqrt(square_sum(weight))
        slope = math.sqrt(square_sum(gradient)) * abs(rescale)
        if size > 0 and slope > 0:
            lr *= eta * size / (slope + wd * size + epsilon)
    return sgd(weight, gradient, states, (lr, wd, rescale, clip, momentum))


def lbsgd(
    weight: Array, gradient: Array, states: Sequence[Array], hyper: tuple[float, ...]
) -> Result:
    """MXNet `LBSGD.update`: SGD by the mean of `batch_scale` gradients.

    Of the hyper, `due` says whether this step has the last of them, and `adapts`
    whether the rate follows the norms.
    """
    lr, wd, rescale, clip, momentum, batch_scale, due, adapts = hyper
    collected, *velocity = states
    total = collected + gradient
    if not due:
        kept, others = unchanged(weight, velocity)
        return kept, (total, *others)
    mean = total / batch_scale
    if adapts:
        size, slope = square_sum(weight), square_sum(mean)
        # Not min and max: a NaN must show.
        lr *= float(np.clip(math.sqrt(size / (slope + wd * size + 1e-18)), 0.01, 100))
    moved, new = sgd(weight, mean, velocity, (lr, wd, rescale, clip, momentum))
    return moved, (np.zeros_like(total), *new)


def lamb(
    weight: Array, gradient: Array, states: Sequence[Array], hyper: tuple[float, ...]
) -> Result:
    """MXNet `lamb_update_phase1` and `lamb_update_phase2`.

    Of the hyper, `correction1` and `correction2` are 1 - beta1 ** t and 1 - beta2 ** t,
    or 1; negative bounds of the weight's norm mean none.
    """
    lr, wd, rescale, clip, beta1, beta2, epsilon, *others = hyper
    correction1, correction2, lower, upper = others
    g = rescaled(gradient, rescale, clip)
    mean = running(states[0], g, beta1)
    variance = running(states[1], g * g, beta2)
    step = mean / correction1 / (np.sqrt(variance / correction2) + epsilon)
    step = step + wd * weight
    size, length = math.sqrt(square_sum(weight)), math.sqrt(square_sum(step))
    if lower >= 0:
        size = max(size, lower)
    if upper >= 0:
        size = min(size, upper)
    trust = size / length if size != 0 and length != 0 else 1.0
    return weight - lr * trust * step, (mean, variance)
