"""The state of training on all devices, copied into arrays that are given.

Parameters and the optimizer's states are taken from the first member that keeps them,
auxiliary states from each share of the batch, since every share has its own. One
command on all devices: what it copies stood there at one moment, between two steps.
What a share carries from step to step besides comes as it is, in a `Carried`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

from runtime.devices.contract import Program
from runtime.executor.collective import Update
from runtime.executor.memory import Memory
from runtime.executor.row_sparse import Gradient
from runtime.executor.sums import mean
from runtime.graph.ir import Shape

Array = NDArray[Any]


@dataclass(frozen=True)
class StateArray:
    """An array of the state.

    Attributes:
        kind: "parameter", "auxiliary", or the name of an optimizer state.
        name: Whose it is.
        share: The share of the batch that it belongs to; 0 but for auxiliary states.
        shape: Its shape.
        dtype: NumPy's name of its dtype.
    """

    kind: str
    name: str
    share: int
    shape: Shape
    dtype: str


@dataclass
class Snapshot:
    """What stood on the devices at one moment, between two steps.

    Attributes:
        parameters: By name.
        auxiliaries: Of each share of the batch that has had rows to train on.
        of_rule: The optimizer's states by state name and parameter.
        of_function: What an optimizer without a rule keeps, by parameter.
    """

    parameters: dict[str, Array] = field(default_factory=dict)
    auxiliaries: list[dict[str, Array]] = field(default_factory=list)
    of_rule: dict[str, dict[str, Array]] = field(default_factory=dict)
    of_function: dict[str, Any] = field(default_factory=dict)

    def mean_auxiliaries(self) -> dict[str, Array]:
        """Their mean over the shares."""
        names = dict.fromkeys(name for part in self.auxiliaries for name in part)
        return {
            name: mean([part[name] for part in self.auxiliaries if name in part])
            for name in names
        }


@dataclass(frozen=True)
class Carried:
    """What one share of the batch carries from step to step, most often nothing.

    Attributes:
        states: The state inputs that were set, or the numbers that fill them.
        gradients: Of the parameters whose request is "add".
    """

    states: dict[str, Array | float] = field(default_factory=dict)
    gradients: dict[str, Gradient] = field(default_factory=dict)


@dataclass(frozen=True)
class Source:
    """Where such an array is.

    Attributes:
        member: Whose thread reads it.
        program: The program that holds it.
        segment: In which segment.
    """

    member: int
    program: Program
    segment: str


def sources(memory: Memory, update: Update | None) -> dict[StateArray, Source]:
    """All arrays of the state, in a fixed order, and where each is."""
    found: dict[StateArray, Source] = {}
    placement = memory.placement
    for name, tensor in memory.parameters.tensors.items():
        holder = placement.holder(name)
        array = StateArray("parameter", name, 0, tensor.shape, tensor.dtype)
        found[array] = Source(holder, memory.storage[holder], "parameter")
    for index, member in enumerate(placement.members):
        for name, tensor in memory.auxiliaries.tensors.items():
            if placement.holds(index, name):
                array = StateArray(
                    "auxiliary", name, member.share, tensor.shape, tensor.dtype
                )
                found[array] = Source(index, memory.storage[index], "auxiliary")
    for index in range(len(placement.members)) if update is not None else ():
        assert update is not None
        for state, name, program in update.programs.states_of(index):
            tensor = program.plan.tensors[f"state.{state}"][name]
            array = StateArray(state, name, 0, tensor.shape, tensor.dtype)
            found[array] = Source(index, program, f"state.{state}")
    return found


def copy_from(
    member: int,
    sources: Mapping[StateArray, Source],
    targets: Mapping[StateArray, Array],
) -> None:
    """Fill the targets of the arrays that a member reads; on its thread."""
    for array, source in sources.items():
        if source.member == member:
            source.program.read(source.segment, array.name, out=targets[array])
