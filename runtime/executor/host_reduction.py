"""Gradients summed on the host: for devices apart, and for Python's optimizers.

Every device has read its gradients. One sums and runs a Python function on copies, or
the first of each memory sums what its update is to read; always in the devices' order.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtime.devices.contract import Program
from runtime.executor.memory import Memory
from runtime.executor.row_sparse import Gradient, write_gradient
from runtime.executor.step import Step
from runtime.executor.sums import summed
from runtime.executor.update_programs import UpdatePrograms
from runtime.executor.updater import Updater
from runtime.row_sparse import RowSparseNDArray

Array = NDArray[Any]


class HostReduction:
    """See the module.

    Attributes:
        states: What the update function keeps for each parameter that it has seen.
    """

    def __init__(
        self,
        updater: Updater,
        memory: Memory,
        fixed_ones: frozenset[str],
        programs: UpdatePrograms,
        owner: HostReduction | None = None,
    ) -> None:
        self.states: dict[str, Any] = {}
        self._updater = updater
        self._memory = memory
        self._fixed_ones = fixed_ones
        self._programs = programs
        self._owner = owner or self

    def read_states(self) -> dict[str, Any]:
        """A copy of the states."""
        return copy.deepcopy(self._owner.states)

    def write_states(self, states: Mapping[str, Any]) -> None:
        """Let the update function continue from these."""
        self._owner.states = copy.deepcopy(dict(states))

    def reduce(self, index: int, step: Step) -> bool:
        """Sum gradients on the host; False if another device failed in it."""
        memory = self._memory
        try:
            if self._updater.rule is None:
                if index == 0:
                    step.weights, states = self._call_function(step)
                    step.undo.append(partial(self._set_states, self._owner.states))
                    self._owner.states = states
            elif memory.is_leader(index):
                program = self._programs.updates[index]
                assert program is not None or not self._programs.here[index]
                if program is not None:
                    for name in self._programs.here[index]:
                        total = _total(name, step.gradients)
                        if isinstance(total, RowSparseNDArray):
                            write_gradient(program, name, total, ".0")
                        else:
                            program.write("gradient.0", name, total)
        except BaseException:
            step.reduced.fail()
            raise
        return step.reduced.wait()

    def apply(self, index: int, step: Step) -> None:
        """Write the weights that the update function has made."""
        memory = self._memory
        if self._updater.rule is not None or not memory.is_leader(index):
            return
        storage, here = memory.storage[index], self._programs.here[index]
        if memory.drops:  # then a step that fails after this must be none
            before = {name: storage.read("parameter", name) for name in here}
            step.undo.append(partial(_write_weights, storage, before))
        _write_weights(storage, {name: step.weights[name] for name in here})

    def _set_states(self, states: dict[str, Any]) -> bool:
        self._owner.states = states
        return True

    def _call_function(self, step: Step) -> tuple[dict[str, Array], dict[str, Any]]:
        """Run the update function on copies; nothing has changed if it raises."""
        updater = self._updater
        assert updater.function is not None
        storage, holder = self._memory.storage, self._memory.placement.holder
        weights: dict[str, Array] = {}
        states = dict(self._owner.states)
        for index, name in enumerate(updater.parameters):
            weight = storage[holder(name)].read("parameter", name)
            if name in self._fixed_ones:
                weight[...] = 1
            gradient = np.asarray(_total(name, step.gradients))
            if step.part is not None:
                mean = gradient * gradient.dtype.type(step.part.share)
                gradient = mean.astype(weight.dtype, copy=False)
            if name in states:
                state = copy.deepcopy(states[name])
            elif updater.create_state is not None:
                state = updater.create_state(index, weight)
            else:
                state = None
            updater.function(index, weight, gradient, state)
            weights[name], states[name] = weight, state
        return weights, states


def _total(name: str, gradients: Sequence[Mapping[str, Gradient]]) -> Gradient:
    return summed([part[name] for part in gradients if name in part])


def _write_weights(storage: Program, weights: Mapping[str, Array]) -> bool:
    for name, weight in weights.items():
        storage.write("parameter", name, weight)
    return True
