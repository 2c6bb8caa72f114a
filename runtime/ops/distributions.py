"""Random numbers of several distributions, out of those that a source gives.

Normal numbers come from uniform ones by Box and Muller's transform, exponential ones
by the inverse of their distribution. For the rest each row of the batch has a NumPy
generator, so that its numbers are the same on whatever device.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from runtime.graph.registry import Array, Mode, RandomSource

Shape = tuple[int, ...]
Parameters = Sequence[Any]  # numbers, or arrays of them
Draw = Callable[[RandomSource, Parameters, Shape], Array]


def source_of(mode: Mode) -> RandomSource:
    """Where an operator's numbers come from."""
    if mode.random is None:
        raise ValueError("random numbers are needed here, but `mode.random` is None")
    return mode.random


def uniform(source: RandomSource, p: Parameters, shape: Shape) -> Array:
    """On [low, high)."""
    low, high = p
    numbers: Array = low + (high - low) * source.uniform(shape)
    return numbers


def normal(source: RandomSource, p: Parameters, shape: Shape) -> Array:
    """With mean and standard deviation."""
    mean, deviation = p
    pairs = source.uniform((*shape, 2))
    radius = np.sqrt(-2 * np.log1p(-pairs[..., 0]))
    angle = np.float32(2 * np.pi) * pairs[..., 1]
    numbers: Array = mean + deviation * radius * np.cos(angle)
    return numbers


def exponential(source: RandomSource, p: Parameters, shape: Shape) -> Array:
    """With rate lam: the mean is its inverse."""
    (rate,) = p
    numbers: Array = -np.log1p(-source.uniform(shape)) / rate
    return numbers


def integers(source: RandomSource, p: Parameters, shape: Shape) -> Array:
    """On [low, high), each as likely as the other."""
    low, high = p
    words = source.uniform((*shape, 2)).astype(np.float64)
    drawn = words[..., 0] + words[..., 1] * 2.0**-24
    offsets = np.floor(drawn * (high - low)).astype(np.int64)
    numbers: Array = low + np.minimum(offsets, high - low - 1)
    return numbers


def by_rows(draw: Callable[..., Array]) -> Draw:
    """A distribution of NumPy's: `draw(generator, *parameters, shape)`."""

    def drawn(source: RandomSource, p: Parameters, shape: Shape) -> Array:
        wide = [np.broadcast_to(np.asarray(each, np.float64), shape) for each in p]
        rows = [
            draw(source.generator(row), *(each[row] for each in wide), shape[1:])
            for row in range(shape[0])
        ]
        return np.stack(rows)

    return drawn


gamma = by_rows(lambda generator, alpha, beta, n: generator.gamma(alpha, beta, n))
poisson = by_rows(lambda generator, lam, n: generator.poisson(lam, n))
negative_binomial = by_rows(
    lambda generator, k, p, n: generator.negative_binomial(k, p, n)
)


def _generalized(
    generator: np.random.Generator, mean: Array, alpha: Array, n: Shape
) -> Array:
    """A Poisson distribution whose own mean is gamma distributed."""
    safe = np.where(alpha == 0, 1, alpha)
    rate = np.where(alpha == 0, mean, generator.gamma(1 / safe, mean * safe, n))
    return generator.poisson(rate, n)


generalized_negative_binomial = by_rows(_generalized)
