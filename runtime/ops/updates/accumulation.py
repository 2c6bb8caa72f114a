"""Steps scaled, per weight or per row, by the squares of the gradients so far."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from runtime.ops.updates.moments import running
from runtime.ops.updates.rule import (
    Array,
    Result,
    clipped,
    decayed,
    rescaled,
    unchanged,
)


def adagrad(
    weight: Array, gradient: Array, states: Sequence[Array], hyper: tuple[float, ...]
) -> Result:
    """MXNet `AdaGrad.update`."""
    lr, wd, rescale, clip, epsilon = hyper
    g = rescaled(gradient, rescale, clip)
    history = states[0] + g * g
    return weight - lr * (g / np.sqrt(history + epsilon) + wd * weight), (history,)


def groupadagrad(
    weight: Array, gradient: Array, states: Sequence[Array], hyper: tuple[float, ...]
) -> Result:
    """MXNet `GroupAdaGrad.update`: one scale per row of a matrix, and no decay."""
    lr, _, rescale, clip, epsilon = hyper
    g = rescaled(gradient, rescale, clip)
    history = states[0] + np.mean(g * g, axis=1, keepdims=True)
    return weight - lr * g / np.sqrt(history + epsilon), (history,)


def adadelta(
    weight: Array, gradient: Array, states: Sequence[Array], hyper: tuple[float, ...]
) -> Result:
    """MXNet `AdaDelta.update`; it has no use for the learning rate."""
    _, wd, rescale, clip, rho, epsilon = hyper
    g = rescaled(gradient, rescale, clip)
    gradients = running(states[0], g * g, rho)
    step = np.sqrt(states[1] + epsilon) / np.sqrt(gradients + epsilon) * g
    steps = running(states[1], step * step, rho)
    return weight - (step + wd * weight), (gradients, steps)


def rmsprop(
    weight: Array, gradient: Array, states: Sequence[Array], hyper: tuple[float, ...]
) -> Result:
    """MXNet `rmsprop_update`."""
    lr, wd, rescale, clip, gamma1, epsilon, clip_weights = hyper
    g = decayed(weight, gradient, wd, rescale, clip)
    squares = running(states[0], g * g, gamma1)
    return clipped(weight - lr * g / np.sqrt(squares + epsilon), clip_weights), (
        squares,
    )


def rmsprop_centered(
    weight: Array, gradient: Array, states: Sequence[Array], hyper: tuple[float, ...]
) -> Result:
    """MXNet `rmspropalex_update`: scaled by the variance, and with momentum."""
    lr, wd, rescale, clip, gamma1, gamma2, epsilon, clip_weights = hyper
    g = decayed(weight, gradient, wd, rescale, clip)
    squares = running(states[0], g * g, gamma1)
    mean = running(states[1], g, gamma1)
    scale = np.sqrt(squares - mean * mean + epsilon)
    step = gamma2 * states[2] - lr * g / scale
    return clipped(weight + step, clip_weights), (squares, mean, step)


def ftrl(
    weight: Array, gradient: Array, states: Sequence[Array], hyper: tuple[float, ...]
) -> Result:
    """MXNet `ftrl_update`: follow the regularized leader; a rate of zero is no step."""
    lr, wd, rescale, clip, lamda1, beta = hyper
    if lr == 0:
        return unchanged(weight, states)
    leader, squares = states
    g = rescaled(gradient, rescale, clip)
    total = squares + g * g
    leader = leader + g - (np.sqrt(total) - np.sqrt(squares)) * weight / lr
    moved = (np.sign(leader) * lamda1 - leader) / ((beta + np.sqrt(total)) / lr + wd)
    # Not `>`: a NaN must show.
    return np.where(np.abs(leader) <= lamda1, 0, moved), (leader, total)
