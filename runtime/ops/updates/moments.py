"""Steps by running means of the gradient and of its square."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from runtime.ops.updates.rule import Array, Result, decayed, unchanged


def running(old: Array, new: Array, share: float) -> Array:
    """The running mean: `share` of the old one and the rest of the new value."""
    return share * old + (1 - share) * new


def adam(
    weight: Array, gradient: Array, states: Sequence[Array], hyper: tuple[float, ...]
) -> Result:
    """MXNet `adam_update`; lr holds the corrections of both means."""
    lr, wd, rescale, clip, beta1, beta2, epsilon = hyper
    g = decayed(weight, gradient, wd, rescale, clip)
    mean = running(states[0], g, beta1)
    variance = running(states[1], g * g, beta2)
    return weight - lr * mean / (np.sqrt(variance) + epsilon), (mean, variance)


def adamax(
    weight: Array, gradient: Array, states: Sequence[Array], hyper: tuple[float, ...]
) -> Result:
    """MXNet `Adamax.update`; lr holds the correction of the mean.

    A weight whose gradient was always zero stays: MXNet makes it NaN (0 / 0).
    """
    lr, wd, rescale, clip, beta1, beta2 = hyper
    g = decayed(weight, gradient, wd, rescale, clip)
    mean = running(states[0], g, beta1)
    largest = np.maximum(beta2 * states[1], np.abs(g))
    ratio = np.divide(mean, largest, out=np.zeros_like(mean), where=largest != 0)
    return weight - lr * ratio, (mean, largest)


def nadam(
    weight: Array, gradient: Array, states: Sequence[Array], hyper: tuple[float, ...]
) -> Result:
    """MXNet `Nadam.update`; the momentum schedule comes as numbers.

    Of the hyper, `momentum` and `next_momentum` are the schedule's values of this step
    and the next, `product` that of all so far, `correction` is 1 - beta2 ** t.
    """
    lr, wd, rescale, clip, beta1, beta2, epsilon, *schedule = hyper
    momentum, next_momentum, product, correction = schedule
    g = decayed(weight, gradient, wd, rescale, clip)
    mean = running(states[0], g, beta1)
    variance = running(states[1], g * g, beta2)
    ahead = (1 - momentum) / (1 - product) * g
    ahead = ahead + next_momentum / (1 - product * next_momentum) * mean
    scale = np.sqrt(variance / correction) + epsilon
    return weight - lr * ahead / scale, (mean, variance)


def ftml(
    weight: Array, gradient: Array, states: Sequence[Array], hyper: tuple[float, ...]
) -> Result:
    """MXNet `ftml_update`: follow the moving leader; a rate of zero is no step.

    Of the hyper, `correction1` and `correction2` are 1 - beta1 ** t, 1 - beta2 ** t.
    """
    lr, wd, rescale, clip, beta1, beta2, epsilon, correction1, correction2 = hyper
    if lr == 0:
        return unchanged(weight, states)
    last, variance, leader = states
    g = decayed(weight, gradient, wd, rescale, clip)
    variance = running(variance, g * g, beta2)
    scale = correction1 / lr * (np.sqrt(variance / correction2) + epsilon)
    leader = running(leader, g, beta1) - (scale - beta1 * last) * weight
    return -leader / scale, (scale, variance, leader)
