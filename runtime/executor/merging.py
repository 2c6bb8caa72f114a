"""Merging what the devices computed into whole-batch arrays, on their own threads."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtime.executor.split import Selection, merged_shape
from runtime.graph.ir import Shape
from runtime.graph.plan import Tensor

Array = NDArray[Any]
Place = Array | None


@dataclass(frozen=True)
class Merge:
    """How the parts of some tensors lie in the merged ones.

    Attributes:
        names: The tensors, in order.
        shapes: Merged shapes.
        dtypes: NumPy's names of the element types.
        parts: Per device the place of its part of each tensor, or None for a device
            that has none.
        alone: The only device that has parts, or None.
        nbytes: Size of all merged tensors together.
    """

    names: tuple[str, ...]
    shapes: tuple[Shape, ...]
    dtypes: tuple[str, ...]
    parts: tuple[tuple[Selection, ...] | None, ...]
    alone: int | None
    nbytes: int

    @classmethod
    def of(
        cls,
        names: Sequence[str],
        axes: Sequence[int],
        tensors: Sequence[Sequence[Tensor] | None],
    ) -> Merge:
        """Lay out a merge.

        Args:
            names: The tensors' names.
            axes: The batch axis of each; -1 takes the first active device's.
            tensors: Per device its tensors in the order of `names`, or None.
        """
        active = [i for i, row in enumerate(tensors) if row is not None]
        present = [row for row in tensors if row is not None]
        shapes: list[Shape] = []
        columns: list[tuple[Selection, ...]] = []
        for k, axis in enumerate(axes):
            shape, places = merged_shape([row[k].shape for row in present], axis)
            shapes.append(shape)
            columns.append(places)
        parts: list[tuple[Selection, ...] | None] = [None] * len(tensors)
        for position, device in enumerate(active):
            parts[device] = tuple(column[position] for column in columns)
        dtypes = tuple(tensor.dtype for tensor in present[0])
        sizes = zip(shapes, dtypes, strict=True)
        return cls(
            tuple(names),
            tuple(shapes),
            dtypes,
            tuple(parts),
            active[0] if len(active) == 1 else None,
            sum(math.prod(s) * np.dtype(d).itemsize for s, d in sizes),
        )

    def allocate(self) -> list[Array]:
        """Arrays for the merged tensors; with one active device it brings its own."""
        if self.alone is not None:
            return []
        sizes = zip(self.shapes, self.dtypes, strict=True)
        return [np.empty(shape, dtype) for shape, dtype in sizes]

    def fill(
        self, device: int, merged: list[Array], read: Callable[[str, Place], Array]
    ) -> None:
        """Put a device's parts in their places; on its own thread.

        Args:
            device: Which device.
            merged: What `allocate` has given.
            read: Reads a tensor's part into a place, or into an array of its own.
        """
        parts = self.parts[device]
        if parts is None:
            return
        if device == self.alone:
            merged[:] = [read(name, None) for name in self.names]
            return
        first = all(earlier is None for earlier in self.parts[:device])
        for array, name, place in zip(merged, self.names, parts, strict=True):
            if place is not None:
                read(name, array[place])
            elif first:
                read(name, array)


def placed(array: Array, place: Place) -> Array:
    """The array itself, or its copy in a place."""
    if place is None:
        return array
    place[...] = array
    return place
