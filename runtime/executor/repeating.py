"""What a group's last passes have left, on other devices: for what comes after them.

The last forward is done again. Its inputs are still in the old devices' memory, and it
is known by which key its random numbers were drawn, so that only its share of rows
differs. That the parameters are still those that it ran with, the caller knows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from numpy.typing import NDArray

from runtime.executor.binding import Binding
from runtime.executor.replica import Replica
from runtime.executor.specification import GroupSpec
from runtime.executor.split import merge

Array = NDArray[Any]


class RepeatedForward:
    """See the module; groups without context groups only."""

    def __init__(
        self, spec: GroupSpec, is_train: bool, old: Binding, new: Binding
    ) -> None:
        self._inputs = spec.inputs
        self._is_train = is_train
        self._old, self._new = _replicas(old), _replicas(new)
        self._key = self._old[0].key
        self._parts: list[dict[str, Array]] = [{} for _ in self._old]
        self._whole: dict[str, Array] = {}

    def read(self, index: int) -> None:
        """Keep the inputs of one of the old devices; on its thread."""
        names = [spec.name for spec in self._inputs]
        self._parts[index] = self._old[index].last_inputs(names)

    def combine(self) -> None:
        """Put the inputs together."""
        there = [part for part in self._parts if part]
        for spec in self._inputs if there else ():
            parts = [part[spec.name] for part in there]
            self._whole[spec.name] = merge(parts, spec.batch_axis)

    def jobs(self) -> list[Callable[[], None]]:
        """What the new devices do, once the inputs are combined."""
        return [partial(self._run, replica) for replica in self._new]

    def _run(self, replica: Replica) -> None:
        if self._whole:
            replica.forward_again(self._whole, self._key, self._is_train)


class MovedInputGradients:
    """Gradients of a group's inputs: put together, and split over other devices."""

    def __init__(self, old: Binding, new: Binding) -> None:
        self._old, self._new = old, new
        merge = old.input_gradients
        self._merged = [] if merge is None else merge.allocate()

    def read(self, index: int) -> None:
        """Keep those of one of the old devices; on its thread."""
        merge = self._old.input_gradients
        if merge is not None:
            merge.fill(index, self._merged, self._old.replicas[index].input_gradient)

    def write(self, index: int) -> None:
        """Give one of the new devices its part; on its thread, when all are read."""
        merge = self._new.input_gradients
        places = None if merge is None else merge.parts[index]
        if merge is None or places is None:
            return
        for name, whole, place in zip(merge.names, self._merged, places, strict=True):
            part = whole if place is None else whole[place]
            self._new.replicas[index].write_input_gradient(name, part)


def _replicas(binding: Binding) -> Sequence[Replica]:
    return [r for r in binding.replicas if isinstance(r, Replica)]
