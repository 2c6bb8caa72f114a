"""Steps with noise, that draw from a posterior instead of finding its top."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from runtime.ops.random import PhiloxSource
from runtime.ops.updates.rule import Array, Result, rescaled


def sgld(
    weight: Array, gradient: Array, states: Sequence[Array], hyper: tuple[float, ...]
) -> Result:
    """MXNet `SGLD.update`: half a step, and normal noise of variance lr.

    The noise is a function of `seed`, `stream` (which parameter) and `step`, by the
    Box-Muller transform of the counter-based numbers, so that a step can be repeated.
    """
    lr, wd, rescale, clip, seed, stream, step = hyper
    source = PhiloxSource(int(seed), int(stream), int(step))
    radius, angle = source.uniform((2, weight.size)).astype(np.float64)
    normal = np.sqrt(-2 * np.log(1 - radius)) * np.cos(2 * math.pi * angle)
    noise = (math.sqrt(lr) * normal).astype(weight.dtype).reshape(weight.shape)
    g = rescaled(gradient, rescale, clip)
    return weight - lr / 2 * (g + wd * weight) + noise, ()
