"""Initializers that draw from the generator of `mx.random`."""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np

from asyncmod import random
from asyncmod.initializer.base import Array, Initializer, InitializerError, register


def _fill_uniform(arr: Array, scale: float) -> None:
    """Numbers of U(-scale, scale), drawn in place where the dtype allows."""
    if arr.dtype in (np.float32, np.float64) and arr.flags.c_contiguous:
        random.generator().random(out=arr, dtype=arr.dtype.type)
        arr *= 2.0 * scale
        arr -= scale
    else:
        arr[...] = random.generator().uniform(-scale, scale, arr.shape)


def _fill_normal(arr: Array, sigma: float) -> None:
    """Numbers of N(0, sigma), drawn in place where the dtype allows."""
    if arr.dtype in (np.float32, np.float64) and arr.flags.c_contiguous:
        random.generator().standard_normal(out=arr, dtype=arr.dtype.type)
        arr *= sigma
    else:
        arr[...] = random.generator().normal(0.0, sigma, arr.shape)


@register
class Uniform(Initializer):
    """Weights of U(-scale, scale).

    Args:
        scale: The bound.
    """

    def __init__(self, scale: float = 0.07) -> None:
        super().__init__(scale=scale)
        self.scale = scale

    def _init_weight(self, name: str, arr: Array) -> None:
        _fill_uniform(arr, self.scale)


@register
class Normal(Initializer):
    """Weights of N(0, sigma).

    Args:
        sigma: Standard deviation.
    """

    def __init__(self, sigma: float = 0.01) -> None:
        super().__init__(sigma=sigma)
        self.sigma = sigma

    def _init_weight(self, name: str, arr: Array) -> None:
        _fill_normal(arr, self.sigma)


@register
class Orthogonal(Initializer):
    """Rows, or columns where there are fewer of them, orthogonal to each other.

    After Saxe et al., "Exact solutions to the nonlinear dynamics of learning in deep
    linear neural networks". A weight is taken as (first axis, all others).

    Args:
        scale: Length of each row or column.
        rand_type: "uniform" or "normal": what the matrix is made of.
    """

    def __init__(
        self,
        scale: float = 1.414,
        rand_type: Literal["uniform", "normal"] = "uniform",
    ) -> None:
        super().__init__(scale=scale, rand_type=rand_type)
        if rand_type not in ("uniform", "normal"):
            raise InitializerError(
                f"`rand_type` must be 'uniform' or 'normal', not {rand_type!r}"
            )
        self.scale = scale
        self.rand_type = rand_type

    def _init_weight(self, name: str, arr: Array) -> None:
        shape = (arr.shape[0], math.prod(arr.shape[1:]))
        if self.rand_type == "uniform":
            drawn = random.generator().uniform(-1.0, 1.0, shape)
        else:
            drawn = random.generator().normal(0.0, 1.0, shape)
        u, _, v = np.linalg.svd(drawn, full_matrices=False)
        arr[...] = (self.scale * (u if u.shape == shape else v)).reshape(arr.shape)


@register
class Xavier(Initializer):
    """Weights whose spread keeps the scale of signals: sqrt(magnitude / factor).

    With the shape (out, in, k...), fan_in is in * prod(k), fan_out is out * prod(k).

    Args:
        rnd_type: "uniform" draws U(-s, s), "gaussian" N(0, s).
        factor_type: What `factor` is: "in", "out", or "avg", their mean.
        magnitude: See above.

    Raises:
        InitializerError: a type is unknown; when called, fewer than two axes.
    """

    def __init__(
        self,
        rnd_type: Literal["uniform", "gaussian"] = "uniform",
        factor_type: Literal["avg", "in", "out"] = "avg",
        magnitude: float = 3,
    ) -> None:
        super().__init__(
            rnd_type=rnd_type, factor_type=factor_type, magnitude=magnitude
        )
        if rnd_type not in ("uniform", "gaussian"):
            raise InitializerError(
                f"`rnd_type` must be 'uniform' or 'gaussian', not {rnd_type!r}"
            )
        if factor_type not in ("avg", "in", "out"):
            raise InitializerError(
                f"`factor_type` must be 'avg', 'in' or 'out', not {factor_type!r}"
            )
        self.rnd_type = rnd_type
        self.factor_type = factor_type
        self.magnitude = float(magnitude)

    def _init_weight(self, name: str, arr: Array) -> None:
        if arr.ndim < 2:
            raise InitializerError(
                f"Xavier initializer cannot be applied to vector {name}. It requires "
                f"at least 2D, and its shape is {arr.shape}"
            )
        kernel = math.prod(arr.shape[2:])
        fan_in, fan_out = arr.shape[1] * kernel, arr.shape[0] * kernel
        factors = {"avg": (fan_in + fan_out) / 2.0, "in": fan_in, "out": fan_out}
        scale = math.sqrt(self.magnitude / factors[self.factor_type])
        fill: Any = _fill_uniform if self.rnd_type == "uniform" else _fill_normal
        fill(arr, scale)


@register
class MSRAPrelu(Xavier):
    """Gaussian Xavier for PReLU: the magnitude is 2 / (1 + slope ** 2).

    After He et al., "Delving Deep into Rectifiers".

    Args:
        factor_type: See Xavier.
        slope: Slope of the PReLU for negative inputs.
    """

    def __init__(
        self, factor_type: Literal["avg", "in", "out"] = "avg", slope: float = 0.25
    ) -> None:
        super().__init__("gaussian", factor_type, 2.0 / (1 + slope**2))
        self._kwargs = {"factor_type": factor_type, "slope": slope}
