"""Jobs that carry arrays between the host and the devices of a group."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from runtime.actors.barrier import Barrier
from runtime.errors import ShapeError
from runtime.executor.memory import Memory
from runtime.executor.replica import Replica
from runtime.graph.ir import Shape

Array = NDArray[Any]
T = TypeVar("T")
R = TypeVar("R")


def gather(
    replicas: Sequence[Replica],
    read: Callable[[Replica], T],
    combine: Callable[[list[T]], R],
) -> list[Callable[[], R | None]]:
    """Read on every device; the first device's thread combines what all have read."""
    parts: list[Any] = [None] * len(replicas)
    all_read = Barrier(len(replicas))

    def run(replica: Replica) -> R | None:
        try:
            parts[replica.index] = read(replica)
        except BaseException:
            all_read.fail()
            raise
        if all_read.wait() and replica.index == 0:
            return combine(parts)
        return None

    return [partial(run, replica) for replica in replicas]


def write_parameters(
    memory: Memory,
    replicas: Sequence[Replica],
    parameters: Mapping[str, Array],
    auxiliaries: Mapping[str, Array],
) -> list[Callable[[], None]]:
    """Set parameters while no device reads them, auxiliary states on every device."""
    arrived, written = Barrier(len(replicas)), Barrier(len(replicas))

    def run(replica: Replica) -> None:
        arrived.wait()
        try:
            if memory.is_leader(replica.index):
                for name, value in parameters.items():
                    replica.storage.write("parameter", name, value)
            for name, value in auxiliaries.items():
                replica.storage.write("auxiliary", name, value)
        finally:
            written.wait()
        if parameters.keys() >= memory.parameters.tensors.keys():
            memory.torn = None

    return [partial(run, replica) for replica in replicas]


def check_arrays(
    what: str, arrays: Mapping[str, Array], shapes: Mapping[str, Shape]
) -> dict[str, Array]:
    """The values as arrays of numbers.

    Raises:
        KeyError: a name that is not in `shapes`.
        ShapeError: a shape that differs.
        TypeError: values that are no numbers.
    """
    checked: dict[str, Array] = {}
    for name, value in arrays.items():
        if name not in shapes:
            raise KeyError(f"`{name}` is no {what}; there are {', '.join(shapes)}")
        array = np.asarray(value)
        if array.shape != shapes[name]:
            raise ShapeError(
                f"{what} `{name}` has shape {array.shape}, but {shapes[name]} is bound"
            )
        if array.dtype.kind not in "biuf" and array.dtype.name != "bfloat16":
            raise TypeError(f"{what} `{name}` holds {array.dtype}, not numbers")
        checked[name] = array
    return checked
