"""Sums and means over devices: always in the devices' order, which fixes the bits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
T = TypeVar("T")


def summed(parts: Sequence[T]) -> T:
    """The sum of equal arrays, in order; one part is returned as it is.

    All are NumPy arrays, or all are row-sparse.
    """
    total: Any = parts[0]
    for part in parts[1:]:
        total = total + part
    return cast(T, total)


def mean(parts: Sequence[Array]) -> Array:
    """The mean of equal arrays in their dtype; one part is returned as it is."""
    if len(parts) == 1:
        return parts[0]
    total = np.asarray(summed(parts) / len(parts))
    return total.astype(parts[0].dtype, copy=False)
