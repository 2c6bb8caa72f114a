"""What is compiled for an updater: on each device its update, and sums over batches.

Next: `runtime.graph.update`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtime.devices.contract import Program, Segment
from runtime.executor.accumulation import Part
from runtime.executor.memory import Memory
from runtime.executor.row_sparse import Gradient, read_gradient, write_gradient
from runtime.executor.staged import AnyReplica
from runtime.executor.updater import Updater
from runtime.graph.accumulate import plan_accumulate
from runtime.graph.plan import HALF
from runtime.graph.update import MASTER, plan_update
from runtime.ops.update import get_rule
from runtime.row_sparse import RowSparseNDArray

Array = NDArray[Any]


class UpdatePrograms:
    """See the module; on the device threads.

    Args:
        updater: Whose.
        memory: What it updates.
        fixed_ones: Parameters that count as 1 whatever they hold.
        owner: Whose states it uses; None if it has its own.

    Attributes:
        updates, accumulators: Per device; None where it has nothing to do.
        kept: Per device the parameters whose gradients it keeps.
        here: Per device the parameters of its memory.
    """

    def __init__(
        self,
        updater: Updater,
        memory: Memory,
        fixed_ones: frozenset[str],
        owner: UpdatePrograms | None = None,
    ) -> None:
        self.updates: list[Program | None] = [None] * len(memory.devices)
        self.accumulators: list[Program | None] = [None] * len(memory.devices)
        placement, devices = memory.placement, range(len(memory.devices))
        self.kept = [
            [n for n in updater.parameters if placement.holds(i, n)] for i in devices
        ]
        self.here = [
            [n for n in updater.parameters if n in memory.layouts(i)[0].tensors]
            for i in devices
        ]
        self._updater = updater
        self._memory = memory
        self._fixed_ones = fixed_ones
        self._owner = owner or self
        self._added: list[Part | None] = [None] * len(memory.devices)
        # The array of each device's last step: mostly it is given again.
        self._written: list[NDArray[np.float64] | None] = [None] * len(memory.devices)

    def of(self, device: int) -> list[Program]:
        """What was compiled for a device."""
        both = (self.updates[device], self.accumulators[device])
        return [program for program in both if program is not None]

    @property
    def inline(self) -> bool:
        """Whether all devices have an update, and all that is compiled is cheap."""
        return None not in self.updates and all(
            program.inline for i in range(len(self.updates)) for program in self.of(i)
        )

    @property
    def prepares(self) -> bool:
        """Whether some update computes something beside what is there."""
        return any(
            p is not None and p.plan.sections.get("prepare") for p in self.updates
        )

    # Compiling ----------------------------------------------------------------------

    def compile_accumulator(self, device: int) -> None:
        """Make the sum over batches of the gradients that a device keeps."""
        memory, updater = self._memory, self._updater
        if not self.kept[device]:
            return
        plan = plan_accumulate(
            memory.layouts(device)[0],
            self.kept[device],
            updater.accumulates or (),
            memory.devices[device].native,
            memory.rows_of(device),
            memory.guards,
        )
        gradients = memory.storage[device].segments
        shared = {n: s for n, s in gradients.items() if n.startswith("gradient")}
        shared |= memory.accumulators[device]
        program = memory.devices[device].compile(plan, shared)
        memory.accumulators[device] = {
            name: segment
            for name, segment in program.segments.items()
            if name.startswith("accumulator")
        }
        self.accumulators[device] = program

    def compile(self, device: int, leads: bool) -> None:
        """Make a device's part of the update; leaders first, whose state others share.

        Raises:
            OperatorError: the rule does not go with a parameter's shape.
        """
        memory, updater = self._memory, self._updater
        leader = memory.leader(device)
        if leads is not (device == leader) or not self.here[device]:
            return
        assert updater.rule is not None
        rule = get_rule(updater.rule)
        domain = next(domain for domain in memory.domains if device in domain)
        position = domain.index(device)
        layout, _ = memory.layouts(device)
        for name in self.here[device]:
            rule.check(name, layout.tensors[name].shape)
        source = memory.placement.source
        kept = [i for i in range(len(memory.devices)) if source(i) == i]
        one_domain = len(memory.domains) == 1
        native = memory.devices[device].native
        plan = plan_update(
            updater.rule,
            layout,
            self.here[device],
            states=[state for state in updater.states if state != MASTER],
            hyper=len(rule.hyper),
            devices=len(kept) if one_domain else 1,
            part=position,
            parts=len(domain),
            whole=not rule.elementwise,
            native=native,
            fixed_ones=self._fixed_ones,
            master=MASTER in updater.states,
            gradient_rows=memory.rows_of(device),
            gap=memory.guards,
            lazy=updater.lazy and rule.by_rows,
            accumulated=updater.accumulates is not None,
        )
        shared: dict[str, Segment] = {
            "parameter": memory.storage[device].segments["parameter"]
        }
        if one_domain:
            for k, i in enumerate(kept):
                added_up = self.accumulators[i]
                held, kind = (
                    (memory.storage[i], "gradient")
                    if added_up is None
                    else (added_up, "accumulator")
                )
                for end in ("", "_rows", "_values"):
                    if kind + end in held.segments:
                        shared[f"gradient{end}.{k}"] = held.segments[kind + end]
        owner, lead = self._owner.updates[leader], self.updates[leader]
        for other, kind in ((owner, "state."), (lead, "state."), (lead, "gradient")):
            for name, segment in other.segments.items() if other is not None else ():
                if name.startswith(kind):
                    shared[name] = segment
        self.updates[device] = memory.devices[device].compile(plan, shared)

    # Running ------------------------------------------------------------------------

    def add(self, index: int, part: Part | None) -> None:
        """Add a device's gradients to its accumulator."""
        program = self.accumulators[index]
        if part is not None and part.adds and program is not None:
            self._added[index] = part
            program.launch("start" if part.number == 1 else "add")
            program.wait()

    def take_back(self, index: int, part: Part | None) -> bool:
        """Take an `add` of this part back; False if the device cannot do that."""
        program = self.accumulators[index]
        if part is None or program is None or self._added[index] is not part:
            return True
        self._added[index] = None
        # The first part replaces what was there, and will do so again.
        return part.number == 1 or program.undo("add")

    def gradients(self, replica: AnyReplica) -> dict[str, Gradient]:
        """Those that a device keeps, on the host."""
        return {n: self._gradient(replica, n) for n in self.kept[replica.index]}

    def _gradient(self, replica: AnyReplica, name: str) -> Gradient:
        program = self.accumulators[replica.index]
        if program is None:
            return replica.gradient(name)
        if name in self._memory.gradient_rows.tensors:
            return read_gradient(program, name, "accumulator")
        return program.read("accumulator", name)

    def read_sums(self, device: int) -> dict[str, Gradient]:
        """What a device has added up, by parameter; none if it adds nothing up."""
        program = self.accumulators[device]
        if program is None:
            return {}
        rows = self._memory.gradient_rows.tensors
        return {
            name: read_gradient(program, name, "accumulator")
            if name in rows
            else program.read("accumulator", name)
            for name in self.kept[device]
        }

    def write_sums(self, device: int, sums: Mapping[str, Gradient]) -> None:
        """Let a device add to these."""
        program = self.accumulators[device]
        for name, value in sums.items() if program is not None else ():
            assert program is not None
            if isinstance(value, RowSparseNDArray):
                write_gradient(program, name, value, kind="accumulator")
            else:
                program.write("accumulator", name, value)

    def prepare(self, index: int) -> None:
        """Compute what a device's update needs beside what is there."""
        program = self.updates[index]
        if program is not None:
            program.launch("prepare")
            program.wait()

    def write_hyper(self, index: int, hyper: NDArray[np.float64] | None) -> None:
        """Give a device the numbers of its next step, unless it has them."""
        if hyper is None or hyper is self._written[index]:
            return
        program = self.updates[index]
        if program is not None:
            program.write("hyper", "hyper", self._rows(index, hyper))
            self._written[index] = hyper

    def _rows(self, index: int, hyper: NDArray[np.float64]) -> NDArray[np.float64]:
        """The numbers of the parameters that this device updates."""
        names, here = self._updater.parameters, self.here[index]
        if len(here) == len(names):
            return hyper
        return hyper[[names.index(name) for name in here]]

    # States -------------------------------------------------------------------------

    def states_of(self, device: int) -> Iterator[tuple[str, str, Program]]:
        """State, parameter and program of the states of which this device is first."""
        program, holder = self.updates[device], self._memory.placement.holder
        if program is None:
            return
        names = [n for n in self.kept[device] if holder(n) == device]
        for state in self._updater.states:
            for name in self._having(state):
                if name in names:
                    yield state, name, program

    def read_states(self, device: int) -> dict[str, dict[str, Array]]:
        """The rule's states by state name and parameter, where this device is first."""
        states: dict[str, dict[str, Array]] = {}
        for state, name, program in self.states_of(device):
            values = states.setdefault(state, {})
            values[name] = program.read(f"state.{state}", name)
        return states

    def write_states(
        self, device: int, states: Mapping[str, Mapping[str, Array]]
    ) -> None:
        """Set states on the device that leads its domain."""
        program = self.updates[device]
        if program is None or not self._memory.is_leader(device):
            return
        for state, values in states.items():
            for name in self.here[device]:
                if name in values:
                    program.write(f"state.{state}", name, values[name])

    def _having(self, state: str) -> list[str]:
        """The parameters that have this state."""
        tensors = self._memory.parameters.tensors
        return [
            name
            for name in self._updater.parameters
            if state != MASTER or tensors[name].dtype == HALF
        ]
