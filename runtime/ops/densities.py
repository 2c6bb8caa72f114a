"""Densities of distributions at samples, for each element of arrays of parameters.

Parameters have one shape, which is that of the first axes of the samples. Those of
discrete distributions have no slope.

Source: MXNet's `src/operator/random/pdf_op.h`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from math import log, pi
from typing import Any

import numpy as np

from runtime.errors import ShapeError
from runtime.graph.registry import Array, Mode, Operator, Saved, Shapes, register
from runtime.graph.shapes import unify
from runtime.ops.rules import accumulator, one_shape
from runtime.ops.special import digamma, gammaln


@dataclass(frozen=True)
class Density:
    """One distribution.

    Attributes:
        name: MXNet's.
        parameters: Their names.
        logarithm: The logarithm of the density, from samples and parameters.
        slopes: Its derivatives by each of them; a number stands for that everywhere.
        axes: How many axes one sample has, and one of the parameters.
    """

    name: str
    parameters: tuple[str, ...]
    logarithm: Callable[..., Array]
    slopes: Callable[..., Sequence[Any]]
    axes: int = 0


@dataclass(frozen=True)
class Attributes:
    """Attributes: `is_log` asks for the logarithm of the density."""

    is_log: bool = False


def _normal(x: Array, mu: Array, sigma: Array) -> Array:
    result: Array = -0.5 * ((x - mu) / sigma) ** 2 - np.log(sigma) - 0.5 * log(2 * pi)
    return result


def _normal_slopes(x: Array, mu: Array, sigma: Array) -> list[Array]:
    away = (x - mu) / sigma
    return [-away / sigma, away / sigma, (away**2 - 1) / sigma]


def _gamma(x: Array, alpha: Array, beta: Array) -> Array:
    powers = alpha * np.log(beta) + (alpha - 1) * np.log(x)
    result: Array = powers - beta * x - gammaln(alpha)
    return result


def _gamma_slopes(x: Array, alpha: Array, beta: Array) -> list[Array]:
    by_alpha = np.log(beta) + np.log(x) - digamma(alpha)
    return [(alpha - 1) / x - beta, by_alpha, alpha / beta - x]


def _negative_binomial(x: Array, k: Array, p: Array) -> Array:
    ways = gammaln(x + k) - gammaln(x + 1) - gammaln(k)
    result: Array = ways + k * np.log(p) + x * np.log1p(-p)
    return result


def _negative_binomial_slopes(x: Array, k: Array, p: Array) -> list[Any]:
    by_k = digamma(x + k) - digamma(k) + np.log(p)
    return [0, by_k, k / p - x / (1 - p)]


def _by_mean(mu: Array, alpha: Array) -> tuple[Array, Array]:
    """What k and p of a negative binomial distribution are."""
    return 1 / alpha, 1 / (1 + mu * alpha)


def _generalized(x: Array, mu: Array, alpha: Array) -> Array:
    return _negative_binomial(x, *_by_mean(mu, alpha))


def _generalized_slopes(x: Array, mu: Array, alpha: Array) -> list[Any]:
    k, p = _by_mean(mu, alpha)
    _, by_k, by_p = _negative_binomial_slopes(x, k, p)
    return [0, -by_p * alpha * p**2, -by_k * k**2 - by_p * mu * p**2]


def _dirichlet(x: Array, alpha: Array) -> Array:
    powers = ((alpha - 1) * np.log(x)).sum(axis=-1)
    result: Array = powers + gammaln(alpha.sum(-1)) - gammaln(alpha).sum(-1)
    return result


def _dirichlet_slopes(x: Array, alpha: Array) -> list[Array]:
    by_alpha = np.log(x) + digamma(alpha.sum(-1, keepdims=True)) - digamma(alpha)
    return [(alpha - 1) / x, by_alpha]


DENSITIES = (
    Density(
        "uniform",
        ("low", "high"),
        lambda x, low, high: -np.log(high - low) + 0 * x,
        lambda x, low, high: [0, 1 / (high - low), -1 / (high - low)],
    ),
    Density("normal", ("mu", "sigma"), _normal, _normal_slopes),
    Density("gamma", ("alpha", "beta"), _gamma, _gamma_slopes),
    Density(
        "exponential",
        ("lam",),
        lambda x, lam: np.log(lam) - lam * x,
        lambda x, lam: [-lam, 1 / lam - x],
    ),
    Density(
        "poisson",
        ("lam",),
        lambda x, lam: x * np.log(lam) - lam - gammaln(x + 1),
        lambda x, lam: [0, x / lam - 1],
    ),
    Density(
        "negative_binomial", ("k", "p"), _negative_binomial, _negative_binomial_slopes
    ),
    Density(
        "generalized_negative_binomial",
        ("mu", "alpha"),
        _generalized,
        _generalized_slopes,
    ),
    Density("dirichlet", ("alpha",), _dirichlet, _dirichlet_slopes, axes=1),
)


def _shape(
    kind: Density, p: Attributes, inputs: Shapes, outputs: Shapes
) -> tuple[Shapes, Shapes]:
    samples = inputs[0]
    parameters, _ = one_shape(p, inputs[1:], [])
    each = parameters[0]
    if samples is None:
        return [samples, *parameters], outputs
    end = len(samples) - kind.axes
    if each is not None:
        first = len(each) - kind.axes
        if each != (*samples[:first], *samples[end:]):
            raise ShapeError(
                f"parameters of shape {each} do not fit samples of shape {samples}: "
                "their axes must be the first ones of the samples"
                + (", and the last one that of one sample" if kind.axes else "")
            )
    output = unify(outputs[0], samples[:end] or (1,), "output")
    return [samples, *parameters], [output]


def _wide(kind: Density, inputs: Sequence[Array]) -> list[Array]:
    """Samples, and parameters with as many axes, to compute with."""
    x, *parameters = (each.astype(accumulator(each.dtype)) for each in inputs)
    first = parameters[0].ndim - kind.axes
    between = (1,) * (x.ndim - parameters[0].ndim)
    return [
        x,
        *(
            each.reshape(each.shape[:first] + between + each.shape[first:])
            for each in parameters
        ),
    ]


def _forward(
    kind: Density,
    p: Attributes,
    inputs: Sequence[Array],
    outputs: Sequence[Array],
    mode: Mode,
) -> None:
    (output,) = outputs
    found = kind.logarithm(*_wide(kind, inputs)).reshape(output.shape)
    output[...] = found if p.is_log else np.exp(found)


def _backward(
    kind: Density,
    p: Attributes,
    grads_out: Sequence[Any],
    inputs: Sequence[Any],
    outputs: Sequence[Any],
    grads_in: Sequence[Any],
    mode: Mode,
) -> None:
    (head,), wide = grads_out, _wide(kind, inputs)
    if not p.is_log:
        head = head * outputs[0]
    head = head.reshape(wide[0].shape[: wide[0].ndim - kind.axes] + (1,) * kind.axes)
    for gradient, each, slope in zip(grads_in, wide, kind.slopes(*wide), strict=True):
        if gradient is not None:
            whole = np.broadcast_to(head * slope, wide[0].shape)
            gone = tuple(i for i, n in enumerate(each.shape) if n != whole.shape[i])
            gradient[...] = whole.sum(axis=gone).reshape(gradient.shape)


for _kind in DENSITIES:
    register(
        Operator(
            name=f"_random_pdf_{_kind.name}",
            aliases=(f"random_pdf_{_kind.name}",),
            attributes=Attributes,
            inputs=("sample", *_kind.parameters),
            shape=partial(_shape, _kind),
            forward=partial(_forward, _kind),
            backward=partial(_backward, _kind),
            saved=Saved(tuple(range(1 + len(_kind.parameters))), (0,)),
        )
    )
