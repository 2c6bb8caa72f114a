"""Shapes as programs give them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

ShapeLike = int | np.integer | Sequence[int] | None


def as_shape(shape: ShapeLike) -> tuple[int, ...]:
    """Sizes from a tuple or list of them, from one of one axis, or from none."""
    if isinstance(shape, int | np.integer):
        return (int(shape),)
    return () if shape is None else tuple(map(int, shape))
