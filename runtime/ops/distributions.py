"""Random numbers of several distributions, out of those that a source gives.

Normal numbers come from uniform ones by Box and Muller's transform, exponential ones
by the inverse of their distribution. For the rest each row of the batch has a NumPy
generator, so that its numbers are the same on whatever device.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import repeat
from typing import Any

import numpy as np

from runtime.graph.registry import Array, Mode, RandomSource
from runtime.ops.rules import accumulator

Shape = tuple[int, ...]
Parameters = Sequence[Any]  # numbers, or arrays of them
# Fills the output, given last.
Draw = Callable[[RandomSource, Parameters, Array], None]


def source_of(mode: Mode) -> RandomSource:
    """Where an operator's numbers come from."""
    if mode.random is None:
        raise ValueError("random numbers are needed here, but `mode.random` is None")
    return mode.random


def uniform(source: RandomSource, p: Parameters, output: Array) -> None:
    """On [low, high)."""
    low, high = p
    parts = source.uniform(output.shape).astype(accumulator(output.dtype), copy=False)
    output[...] = low + (high - low) * parts
    keep_below(output, low, high)


def keep_below(numbers: Array, low: Any, high: Any) -> None:
    """Let numbers of [low, high) that rounding has made `high` be the last before it.

    Bounds that are arrays belong to the first axes.
    """
    if numbers.dtype.kind == "f":
        low, high = (np.asarray(bound, numbers.dtype) for bound in (low, high))
        last = np.nextafter(high, low)
        last = last.reshape(last.shape + (1,) * (numbers.ndim - last.ndim))
        np.minimum(numbers, last, out=numbers)


def normal(source: RandomSource, p: Parameters, output: Array) -> None:
    """With mean and standard deviation."""
    mean, deviation = p
    pairs = source.uniform((*output.shape, 2))
    radius = np.sqrt(-2 * np.log1p(-pairs[..., 0]))
    angle = np.float32(2 * np.pi) * pairs[..., 1]
    output[...] = mean + deviation * radius * np.cos(angle)


def exponential(source: RandomSource, p: Parameters, output: Array) -> None:
    """With rate lam: the mean is its inverse."""
    (rate,) = p
    output[...] = -np.log1p(-source.uniform(output.shape)) / rate


def integers(source: RandomSource, p: Parameters, output: Array) -> None:
    """On [low, high), each as likely as the other."""
    low, high = p
    words = source.uniform((*output.shape, 2)).astype(np.float64)
    drawn = words[..., 0] + words[..., 1] * 2.0**-24
    offsets = np.floor(drawn * (high - low)).astype(np.int64)
    output[...] = low + np.minimum(offsets, high - low - 1)


def by_rows(draw: Callable[..., Array]) -> Draw:
    """A distribution of NumPy's: `draw(generator, *parameters, shape)`."""

    def drawn(source: RandomSource, p: Parameters, output: Array) -> None:
        rows, *rest = output.shape
        parameters = zip(*(_by_row(each, output.shape) for each in p), strict=True)
        streams = zip(source.generators(rows), parameters, strict=True)
        for row, (generator, of_row) in enumerate(streams):
            output[row] = draw(generator, *of_row, rest)

    return drawn


def _by_row(parameter: Any, shape: Shape) -> Iterable[Any]:
    """What a parameter is in each row: one number, or an array of them."""
    if np.ndim(parameter) == 0:
        return repeat(float(parameter), shape[0])
    return np.broadcast_to(np.asarray(parameter, np.float64), shape)


def poisson_of_gamma(
    generator: np.random.Generator, mean: Array, alpha: Array, shape: Shape
) -> Array:
    """A Poisson distribution, whose own mean is gamma distributed if alpha is not 0."""
    safe = np.where(alpha == 0, 1, alpha)
    rate = np.where(alpha == 0, mean, generator.gamma(1 / safe, mean * safe, shape))
    return generator.poisson(rate, shape)


gamma = by_rows(np.random.Generator.gamma)
poisson = by_rows(np.random.Generator.poisson)
negative_binomial = by_rows(np.random.Generator.negative_binomial)
generalized_negative_binomial = by_rows(poisson_of_gamma)
