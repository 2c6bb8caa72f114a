"""Sliding windows over the spatial axes of (N, C, *spatial) arrays.

A *tap* is one position inside the window. Seen tap by tap, what all windows read is a
strided slice of the padded input, so convolution and pooling are loops over the few
taps of the kernel with whole-array arithmetic inside, in any number of dimensions.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np

from runtime.graph.registry import Array

Sizes = tuple[int, ...]
# An index whose Ellipsis stands for batch and channel.
Index = tuple[Any, ...]


@dataclass(frozen=True)
class Windows:
    """The geometry of windows: one entry per spatial axis in each field.

    Attributes:
        size: Of the input, without padding.
        kernel: Taps per window.
        stride: Distance of neighboring windows.
        dilate: Distance of neighboring taps.
        pad: Padding before and (at least) after the input.
        count: Number of windows.
    """

    size: Sizes
    kernel: Sizes
    stride: Sizes
    dilate: Sizes
    pad: Sizes
    count: Sizes

    @property
    def padded_size(self) -> Sizes:
        """Enough for every window; a last one may hang over beyond the padding."""
        return tuple(
            max(s + 2 * p, (c - 1) * step + d * (k - 1) + 1)
            for s, k, step, d, p, c in zip(
                self.size,
                self.kernel,
                self.stride,
                self.dilate,
                self.pad,
                self.count,
                strict=True,
            )
        )

    @property
    def inside(self) -> Index:
        """Where the input lies in the padded array."""
        spatial = (slice(p, p + s) for p, s in zip(self.pad, self.size, strict=True))
        return (..., *spatial)

    def padded(self, data: Array, fill: Any, dtype: np.dtype[Any]) -> Array:
        """A copy of `data` of that dtype, with `fill` around it."""
        out = np.full((*data.shape[:2], *self.padded_size), fill, dtype)
        out[self.inside] = data
        return out

    def taps(self) -> Iterator[Index]:
        """For each tap in row-major order: where the windows read the padded array."""
        for tap in product(*map(range, self.kernel)):
            spatial = (
                slice(t * d, t * d + (c - 1) * step + 1, step)
                for t, d, step, c in zip(
                    tap, self.dilate, self.stride, self.count, strict=True
                )
            )
            yield (..., *spatial)


def filled(values: Sizes, rank: int, default: int) -> Sizes:
    """An attribute such as `stride`, which may be left empty, for `rank` axes."""
    return values or (default,) * rank
