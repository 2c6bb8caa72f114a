"""State inputs of one device: kept between batches, neither data nor parameters.

What was set lies in the memory that groups share, so that buckets and batches of other
shapes go on with the same states.

Next: `runtime.executor.replica`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtime.errors import ShapeError
from runtime.executor.specification import InputSpec
from runtime.executor.split import sliced_shape

Array = NDArray[Any]


class StateInputs:
    """See the module.

    Attributes:
        shapes: Shape of this device's part of each state.
    """

    def __init__(
        self,
        specs: Sequence[InputSpec],
        rows: slice,
        held: dict[str, Array | float],
    ) -> None:
        """Look at what the memory holds.

        Args:
            specs: The states.
            rows: The device's rows of the batch.
            held: What was set for the device, arrays or numbers; changed by `set` and
                `fill`.
        """
        self.shapes = {i.name: sliced_shape(i.shape, i.batch_axis, rows) for i in specs}
        self._dtypes = {i.name: i.dtype for i in specs}
        self._held = held

    def set(self, states: Mapping[str, Array]) -> None:
        """Keep copies of arrays, for every forward from now on."""
        for name, value in states.items():
            self._held[name] = value.astype(self._dtypes[name])

    def fill(self, value: float) -> None:
        """Set every element of every state."""
        self._held |= dict.fromkeys(self.shapes, value)

    def held(self) -> dict[str, Array | float]:
        """What was set, as it was set; arrays are copies."""
        return {
            name: value.copy() if isinstance(value, np.ndarray) else value
            for name, value in self._held.items()
        }

    def hold(self, held: Mapping[str, Array | float]) -> None:
        """Go on with what `held` has given; what is no state here is left out."""
        self._held.clear()
        self._held |= {n: value for n, value in held.items() if n in self.shapes}

    def read(self, name: str) -> Array:
        """A copy of a state; zeros if it was never set.

        Raises:
            ShapeError: it was set for a batch of another shape.
        """
        shape, dtype = self.shapes[name], self._dtypes[name]
        held = self._held.get(name, 0.0)
        if not isinstance(held, np.ndarray):
            return np.full(shape, held, dtype)
        if held.shape != shape:
            raise ShapeError(
                f"state `{name}` was set to an array of shape {held.shape}, but this "
                f"batch needs {shape}: set the states anew for batches of another shape"
            )
        return held.astype(dtype)

    def read_all(self) -> dict[str, Array]:
        """Copies of all states."""
        return {name: self.read(name) for name in self.shapes}
