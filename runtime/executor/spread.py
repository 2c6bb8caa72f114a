"""What devices carry from step to step, for more or fewer of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtime.executor.row_sparse import Gradient
from runtime.executor.snapshot import Carried
from runtime.executor.specification import GroupSpec
from runtime.executor.split import merge, select, split
from runtime.executor.sums import summed
from runtime.row_sparse import RowSparseNDArray

Array = NDArray[Any]


def spread(shares: Sequence[Carried], spec: GroupSpec) -> list[Carried]:
    """What each share carries, for the devices of a group.

    State inputs are put together and split as a batch is; the first device has the sum
    of the gradients, and the others zero.
    """
    if len(shares) == len(spec.devices):
        return list(shares)
    spread = [Carried() for _ in spec.devices]
    for state in spec.states:
        held = [s.states[state.name] for s in shares if state.name in s.states]
        if held:
            parts = _split(held, state.batch_axis, spec.workload)
            for share, part in zip(spread, parts, strict=True):
                share.states[state.name] = part
    for name in dict.fromkeys(name for share in shares for name in share.gradients):
        total = summed([s.gradients[name] for s in shares if name in s.gradients])
        for share in spread:
            share.gradients[name] = total if share is spread[0] else zero(total)
    return spread


def _split(
    held: Sequence[Array | float], axis: int, workload: Sequence[float]
) -> list[Array | float]:
    """A state for each device; a device without rows may hold none or a number."""
    parts = [part for part in held if isinstance(part, np.ndarray)]
    if not parts or axis < 0:
        return [held[0]] * len(workload)
    whole = merge(parts, axis)
    return [whole[select(axis, rows)] for rows in split(whole.shape[axis], workload)]


def zero(gradient: Gradient) -> Gradient:
    """A gradient of its shape that is zero."""
    if isinstance(gradient, np.ndarray):
        return np.zeros_like(gradient)
    none = slice(0)
    return RowSparseNDArray(
        gradient.indices[none], gradient.values[none], gradient.shape
    )
