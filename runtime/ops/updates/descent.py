"""Steps along the gradient, with momentum or without."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from runtime.ops.updates.rule import Array, Result, rescaled


def sgd(
    weight: Array, gradient: Array, states: Sequence[Array], hyper: tuple[float, ...]
) -> Result:
    """MXNet `sgd_update` and `sgd_mom_update`: clipping does not include the decay."""
    lr, wd, rescale, clip, momentum = hyper
    scaled = rescaled(gradient, rescale, clip)
    if not states:
        return (1 - lr * wd) * weight - lr * scaled, ()
    velocity = momentum * states[0] - lr * (scaled + wd * weight)
    return weight + velocity, (velocity,)


def nag(
    weight: Array, gradient: Array, states: Sequence[Array], hyper: tuple[float, ...]
) -> Result:
    """MXNet `nag_mom_update`; without momentum it is SGD.

    That kernel works in place, so the momentum decays by the new weight.
    """
    if not states:
        return sgd(weight, gradient, states, hyper)
    lr, wd, rescale, clip, momentum = hyper
    scaled = rescaled(gradient, rescale, clip)
    kept = momentum * states[0]
    ahead = kept - lr * (scaled + wd * weight)
    moved = weight - kept + (1 + momentum) * ahead
    return moved, (kept - lr * (scaled + wd * moved),)


def signum(
    weight: Array, gradient: Array, states: Sequence[Array], hyper: tuple[float, ...]
) -> Result:
    """MXNet `signum_update`, and `signsgd_update` without momentum."""
    lr, wd, rescale, clip, momentum, wd_lh = hyper
    if not states:
        return (1 - lr * wd) * weight - lr * np.sign(gradient), ()
    scaled = rescaled(gradient, rescale, clip) + wd * weight
    velocity = momentum * states[0] - (1 - momentum) * scaled
    return (1 - lr * wd_lh) * weight + lr * np.sign(velocity), (velocity,)


def dcasgd(
    weight: Array, gradient: Array, states: Sequence[Array], hyper: tuple[float, ...]
) -> Result:
    """MXNet `DCASGD.update`: the curvature makes up for gradients that come late.

    The state is the last step, which is the weight less the weight before; with
    momentum it is also what is repeated.
    """
    lr, wd, rescale, clip, momentum, curvature = hyper
    (last,) = states
    scaled = rescaled(gradient, rescale, clip)
    delay = curvature * scaled * scaled * last
    step = momentum * last - lr * (scaled + wd * weight + delay)
    return weight + step, (step,)
