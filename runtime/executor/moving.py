"""What lies in the memory of some devices, copied into memory on fewer of them.

Parameters and the optimizer's states are the same on all; auxiliary states go along
with their device, and those of a device that is dropped are gone. Gradients, and what
was added up over several batches, are summed in the devices' order: the first device
that is left has the sum, the others zero. State inputs are put together and split anew.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtime.actors.barrier import Barrier
from runtime.executor.memory import Memory
from runtime.executor.repeating import MovedInputGradients, RepeatedForward
from runtime.executor.row_sparse import Gradient, read_gradient, write_gradient
from runtime.executor.snapshot import Carried
from runtime.executor.specification import GroupSpec
from runtime.executor.spread import spread
from runtime.executor.updater import Updater

Array = NDArray[Any]
Arrays = dict[str, Array]


@dataclass
class Held:
    """What one device of the old memory holds.

    Attributes:
        parameters: Those that it is the first to hold.
        auxiliaries: Its own.
        rules: By updater the states of which it is the first to hold.
        carried: Its gradients and state inputs.
        sums: What it has added up over several batches.
    """

    parameters: Arrays
    auxiliaries: Arrays
    rules: dict[Updater, dict[str, Arrays]]
    carried: Carried
    sums: Carried = field(default_factory=Carried)


def moving_jobs(
    old: Memory,
    new: Memory,
    spec: GroupSpec,
    lost: Collection[int],
    forwards: Sequence[RepeatedForward],
    input_gradients: Sequence[MovedInputGradients],
) -> list[Callable[[], None]]:
    """One job per device of the old memory; they must run `together`.

    Args:
        old: What is read, also where a worker has died: its memory is shared.
        new: What is written, by the devices that are left.
        spec: How these share a batch.
        lost: Indexes in the old memory of the devices that are not in the new one.
        forwards: What is to be done again after that, and needs its inputs.
        input_gradients: Those of each group.
    """
    count = len(old.devices)
    left = [index for index in range(count) if index not in lost]
    held: list[Held | None] = [None] * count
    carried: list[Carried] = []
    sums: list[Carried] = []
    all_read, combined = Barrier(count), Barrier(len(left))

    def run(index: int) -> None:
        try:
            held[index] = _read(old, index)
            for forward in forwards:
                forward.read(index)
            for gradients in input_gradients:
                gradients.read(index)
        except BaseException:
            all_read.fail()
            raise
        if not all_read.wait() or index in lost:
            return
        everything = [part for part in held if part is not None]
        position = left.index(index)
        try:
            if position == 0:
                carried.extend(spread([part.carried for part in everything], spec))
                sums.extend(spread([part.sums for part in everything], spec))
                new.forwards[:] = [min(old.forwards)] * len(left)
                new.predictions[:] = [min(old.predictions)] * len(left)
                new.torn = old.torn
                _move_functions(old, new)
                for forward in forwards:
                    forward.combine()
        except BaseException:
            combined.fail()
            raise
        if combined.wait():
            _write_shared(new, position, everything)
            for name, value in everything[index].auxiliaries.items():
                new.storage[position].write("auxiliary", name, value)
            _write_own(new, position, carried[position], sums[position])
            for gradients in input_gradients:
                gradients.write(position)

    return [partial(run, index) for index in range(count)]


def _read(memory: Memory, index: int) -> Held:
    storage, placement = memory.storage[index], memory.placement
    tensors = memory.parameters.tensors
    own = [n for n in tensors if placement.holder(n) == index]
    kept = [n for n in memory.auxiliaries.tensors if placement.holds(index, n)]
    states = {
        name: value.copy() if isinstance(value, np.ndarray) else value
        for name, value in memory.states[index].items()
    }
    gradients: dict[str, Gradient] = {}
    for name in tensors if memory.has_gradients else ():
        if name in memory.gradient_rows.tensors:
            gradients[name] = read_gradient(storage, name)
        elif placement.holds(index, name):
            gradients[name] = storage.read("gradient", name)
    rules = {
        updater: update.programs.read_states(index)
        for updater, update in memory.updates.items()
        if updater.shares is None
    }
    added = [update.programs.read_sums(index) for update in memory.updates.values()]
    return Held(
        {name: storage.read("parameter", name) for name in own},
        {name: storage.read("auxiliary", name) for name in kept},
        rules,
        Carried(states, gradients),
        Carried({}, next(filter(None, added), {})),
    )


def _write_shared(memory: Memory, index: int, everything: list[Held]) -> None:
    """What is the same on all devices, where it is kept for some of them."""
    storage = memory.storage[index]
    if memory.is_leader(index):
        here = memory.layouts(index)[0].tensors
        for part in everything:
            for name in here.keys() & part.parameters.keys():
                storage.write("parameter", name, part.parameters[name])
    for updater, update in memory.updates.items():
        for part in everything:
            update.programs.write_states(index, part.rules.get(updater, {}))


def _write_own(memory: Memory, index: int, carried: Carried, sums: Carried) -> None:
    """What is the device's own."""
    storage = memory.storage[index]
    memory.states[index].update(carried.states)
    for name, gradient in carried.gradients.items():
        if isinstance(gradient, np.ndarray):
            storage.write("gradient", name, gradient)
        else:
            write_gradient(storage, name, gradient)
    memory.gradients_zero[index] = False
    for update in memory.updates.values():
        update.programs.write_sums(index, sums.gradients)


def _move_functions(old: Memory, new: Memory) -> None:
    """What update functions keep."""
    for updater, update in old.updates.items():
        if updater.shares is None and updater.rule is None:
            states = update.reduction.read_states()
            new.updates[updater].reduction.write_states(states)
