"""The update of the parameters: sum of gradients and optimizer, all devices or none.

A step has two phases. Every device computes and comes to a barrier; if one fails, all
leave and nothing has changed. Then every device updates its part of the parameters that
its domain shares, straight from the gradients of all devices; no device begins its next
command before all have ended this one, so that nobody reads parameters that another is
still writing. Where devices do not share memory, or the optimizer is a Python function,
gradients cross to the host and are summed there; always in the order of the devices.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from runtime.actors.barrier import Barrier
from runtime.actors.crew import Crew, shielded
from runtime.actors.meeting import Meeting
from runtime.devices.contract import Program, Segment
from runtime.devices.fusing import Phases
from runtime.errors import DeviceError
from runtime.executor.accumulation import Averaged, Part
from runtime.executor.memory import Memory, free
from runtime.executor.replica import Replica
from runtime.executor.row_sparse import Gradient, read_gradient, write_gradient
from runtime.executor.staged import AnyReplica
from runtime.executor.updater import Updater
from runtime.graph.accumulate import plan_accumulate
from runtime.graph.update import HALF, MASTER, plan_update
from runtime.ops.update import get_rule
from runtime.row_sparse import RowSparseNDArray

Array = NDArray[Any]
Undo = Callable[[], bool]
T = TypeVar("T")


class Step:
    """One update, as its device threads share it.

    Attributes:
        part: What it does for an accumulation of several batches, if anything.
        hyper: The rule's numbers for this step.
        error: Why there are none.
        computed, reduced, applied: Barriers after the phases.
        prepared: Another one, where the update computes something beside.
        gradients: Per device its gradients on the host, if they cross.
        undo: What takes back what has been done to the parameters and states.
        update: The update that it is a step of, once it is dispatched.
        compute_seconds, reduce_seconds: Per device.
    """

    __slots__ = (
        "applied",
        "compute_seconds",
        "computed",
        "error",
        "gradients",
        "hyper",
        "part",
        "prepared",
        "reduce_seconds",
        "reduced",
        "undo",
        "update",
        "weights",
    )

    def __init__(self, devices: int, part: Part | None = None) -> None:
        self.part = part
        self.hyper: NDArray[np.float64] | None = None
        self.error: Exception | None = None
        self.computed = Barrier(devices)
        self.reduced = Barrier(devices)
        self.applied = Barrier(devices)
        self.prepared: Barrier | None = None
        self.gradients: list[dict[str, Gradient]] = [{}] * devices
        self.weights: dict[str, Array] = {}
        self.undo: list[Undo] = []
        self.update: Update | None = None
        self.compute_seconds = [0.0] * devices
        self.reduce_seconds = [0.0] * devices

    @property
    def updates(self) -> bool:
        """Whether it updates the parameters, besides adding gradients up."""
        return self.part is None or self.part.updates


class Update:
    """What was compiled for one updater over one memory, and its state.

    Attributes:
        updater: The updater.
        inline: Whether it may run on the Trio thread.
    """

    def __init__(
        self,
        updater: Updater,
        memory: Memory,
        fixed_ones: frozenset[str],
        owner: Update | None = None,
    ) -> None:
        self.updater = updater
        # Whose states and count of steps it uses: its own, or of `updater.shares`.
        self._owner = owner or self
        self._fixed_ones = fixed_ones
        self.inline = False
        self._memory = memory
        self._programs: list[Program | None] = [None] * len(memory.devices)
        self._accumulators: list[Program | None] = [None] * len(memory.devices)
        self._prepares = False
        self._averaged = Averaged()
        # The array of each device's last step: mostly it is given again.
        self._written: list[NDArray[np.float64] | None] = [None] * len(memory.devices)
        self._crosses = updater.rule is None or len(memory.domains) > 1
        placement, devices = memory.placement, range(len(memory.devices))
        # Per device the parameters whose gradients it keeps, and those of its memory.
        self._kept = [
            [n for n in updater.parameters if placement.holds(i, n)] for i in devices
        ]
        self._here = [
            [n for n in updater.parameters if n in memory.layouts(i)[0].tensors]
            for i in devices
        ]
        self._host_states: dict[str, Any] = {}
        self._dispatched: list[Step] = [] if owner is None else owner._dispatched

    @classmethod
    async def prepare(
        cls, crew: Crew, memory: Memory, updater: Updater, fixed_ones: frozenset[str]
    ) -> Update:
        """The update of this updater, compiled at the first call."""
        update = memory.updates.get(updater)
        if update is not None:
            return update
        owner = None
        if updater.shares is not None:
            owner = await cls.prepare(crew, memory, updater.shares, fixed_ones)
        update = cls(updater, memory, fixed_ones, owner)
        devices = range(len(memory.devices))
        phases: list[Callable[[int], None]] = []
        if updater.accumulates is not None:
            phases.append(update._compile_accumulator)
        if updater.rule is not None and updater.parameters:
            phases += [partial(update._compile, leads=leads) for leads in (True, False)]
        try:
            for phase in phases:
                await crew.run("compile", [partial(phase, i) for i in devices])
        except BaseException:
            await shielded(
                "free", crew, [partial(free, update.programs(i)) for i in devices]
            )
            raise
        programs = [program for i in devices for program in update.programs(i)]
        has_all = all(program is not None for program in update._programs)
        update.inline = (
            not update._crosses and has_all and all(p.inline for p in programs)
        )
        update._prepares = any(p.plan.sections.get("prepare") for p in programs)
        # Another task may have been faster.
        won = memory.updates.setdefault(updater, update)
        if won is not update:
            await shielded(
                "free", crew, [partial(free, update.programs(i)) for i in devices]
            )
        return won

    def programs(self, device: int) -> list[Program]:
        """What was compiled for a device."""
        both = (self._programs[device], self._accumulators[device])
        return [program for program in both if program is not None]

    # On the Trio thread -------------------------------------------------------------

    def next_hyper(self, part: Part | None) -> NDArray[np.float64] | None:
        """The next step's numbers; the updater counts it."""
        hyper, rule = self.updater.hyper, self.updater.rule
        if hyper is None or rule is None:
            return None
        numbers = hyper()
        if part is None:
            return numbers
        column = get_rule(rule).hyper.index("rescale_grad")
        return self._averaged(numbers, column, part)

    def count(self, step: Step) -> None:
        """A step is dispatched: give it its numbers."""
        if not step.updates:
            return
        step.hyper = self.next_hyper(step.part)
        step.update = self
        if self._prepares:
            step.prepared = Barrier(len(self._programs))
        self._dispatched.append(step)

    def withdrawn(self, step: Step) -> None:
        """A step will not be: give later ones the numbers that they then should have.

        Called while the step is being withdrawn: later ones cannot have begun.
        """
        if step.part is not None:
            step.part.fail()
        if not step.updates:
            return
        position = self._dispatched.index(step)
        later = self._dispatched[position + 1 :]
        for other in (step, *later):
            assert other.update is not None
            other.update.updater.revert()
        del self._dispatched[position]
        for other in later:
            assert other.update is not None
            try:
                other.hyper = other.update.next_hyper(other.part)
            except Exception as error:  # a scheduler's; its step will raise it
                other.error = error

    def finished(self, step: Step, failed: bool) -> None:
        """A step has ended; one that failed was no step."""
        if not step.updates:
            return
        self._dispatched.remove(step)
        if failed:
            self.updater.revert()

    # On the device threads ----------------------------------------------------------

    def run(
        self, replica: AnyReplica, step: Step, compute: Callable[[], None] | None
    ) -> bool:
        """One device's share of a step; the devices must run it `together`.

        Args:
            replica: The device.
            step: What the devices share.
            compute: The first phase; None if the gradients are there already.

        Returns:
            Whether the step took effect (False: another device failed).
        """
        index = replica.index
        begin = time.perf_counter()
        try:
            self._check(step.part, step.error)
            if compute is not None:
                compute()
            self._add(index, step.part)
            self._write_hyper(index, step.hyper)
            if self._crosses and step.updates:
                names = self._kept[index]
                step.gradients[index] = {n: self._gradient(replica, n) for n in names}
        except BaseException:
            if step.part is not None:
                step.part.fail()
            step.computed.fail()
            raise
        step.compute_seconds[index] = time.perf_counter() - begin
        if not step.computed.wait():
            return False
        begin = time.perf_counter()
        if step.updates:
            if self._crosses and not self._reduce(index, step):
                return False
            if step.prepared is not None and not self._prepare(index, step.prepared):
                return False
        try:
            self._apply(replica, compute is not None, step.updates, step.undo)
        except BaseException as error:
            # The others do not begin anything else before this has ended.
            step.applied.wait()
            self._take_back(step.undo, error)
            raise
        step.applied.arrive()
        step.reduce_seconds[index] = time.perf_counter() - begin
        return True

    def fusible(self, replicas: Sequence[AnyReplica]) -> tuple[Replica, ...]:
        """The replicas, if each runs a step and this update in one launch; or none."""
        if self._crosses or self._prepares or self.updater.accumulates is not None:
            return ()
        able = tuple(
            replica
            for replica in replicas
            if isinstance(replica, Replica)
            and replica.can_fuse(self._programs[replica.index])
        )
        return able if len(able) == len(replicas) else ()

    def run_fused(
        self,
        replica: Replica,
        step: Step,
        meeting: Meeting,
        launch: Callable[[Program, Meeting], Phases],
    ) -> bool:
        """`run` in one launch on this device; all devices must do so, or none."""
        index = replica.index
        program = self._programs[index]
        assert program is not None
        try:
            self._check(step.part, step.error)
            self._write_hyper(index, step.hyper)
            phases = launch(program, meeting)
        except BaseException:
            meeting.fail()
            raise
        step.compute_seconds[index] = phases.compute_seconds
        step.reduce_seconds[index] = phases.update_seconds
        return phases.updated

    def run_here(
        self,
        replicas: Sequence[AnyReplica],
        hyper: NDArray[np.float64] | None,
        inputs: Mapping[str, Array],
        part: Part | None = None,
    ) -> None:
        """All devices' shares of a step, one after another, on the Trio thread.

        Only for an update that is `inline`; needs no barriers.
        """
        self._check(part)
        try:
            for replica in replicas:
                replica.compute(inputs)
                self._add(replica.index, part)
        except BaseException:
            if part is not None:
                part.fail()
            raise
        for replica in replicas:
            self._write_hyper(replica.index, hyper)
        undo: list[Undo] = []
        try:
            for replica in replicas:
                self._apply(replica, True, part is None or part.updates, undo)
        except BaseException as error:
            self._take_back(undo, error)
            raise

    def states_of(self, device: int) -> Iterator[tuple[str, str, Program]]:
        """State, parameter and program of the states of which this device is first."""
        program, holder = self._programs[device], self._memory.placement.holder
        if program is None:
            return
        names = [n for n in self._kept[device] if holder(n) == device]
        for state in self.updater.states:
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

    def read_function_states(self) -> dict[str, Any]:
        """What the update function keeps for each parameter that it has seen."""
        return copy.deepcopy(self._owner._host_states)

    def write_function_states(self, states: Mapping[str, Any]) -> None:
        """Let the update function continue from these."""
        self._owner._host_states = copy.deepcopy(dict(states))

    def write_states(
        self, device: int, states: Mapping[str, Mapping[str, Array]]
    ) -> None:
        """Set states on the device that leads its domain."""
        program = self._programs[device]
        if program is None or not self._memory.is_leader(device):
            return
        for state, values in states.items():
            for name in self._here[device]:
                if name in values:
                    program.write(f"state.{state}", name, values[name])

    def _having(self, state: str) -> list[str]:
        """The parameters that have this state."""
        tensors = self._memory.parameters.tensors
        return [
            name
            for name in self.updater.parameters
            if state != MASTER or tensors[name].dtype == HALF
        ]

    def _check(self, part: Part | None, error: Exception | None = None) -> None:
        if error is not None:
            raise error
        torn = self._memory.torn
        if torn is not None:
            raise DeviceError(torn)
        if part is not None and part.follows_failure:
            raise DeviceError(
                "an earlier batch of this update failed: accumulate its batches anew"
            )

    def _add(self, index: int, part: Part | None) -> None:
        """Add a device's gradients to its accumulator."""
        program = self._accumulators[index]
        if part is not None and part.adds and program is not None:
            program.launch("start" if part.number == 1 else "add")
            program.wait()

    def _gradient(self, replica: AnyReplica, name: str) -> Gradient:
        program = self._accumulators[replica.index]
        if program is None:
            return replica.gradient(name)
        if name in self._memory.gradient_rows.tensors:
            return read_gradient(program, name, "accumulator")
        return program.read("accumulator", name)

    def _prepare(self, index: int, prepared: Barrier) -> bool:
        """Compute beside what is there; False if another device failed in it."""
        program = self._programs[index]
        try:
            if program is not None:
                program.launch("prepare")
                program.wait()
        except BaseException:
            prepared.fail()
            raise
        return prepared.wait()

    def _write_hyper(self, index: int, hyper: NDArray[np.float64] | None) -> None:
        if hyper is None or hyper is self._written[index]:
            return
        program = self._programs[index]
        if program is not None:
            program.write("hyper", "hyper", self._rows(index, hyper))
            self._written[index] = hyper

    def _rows(self, index: int, hyper: NDArray[np.float64]) -> NDArray[np.float64]:
        """The numbers of the parameters that this device updates."""
        names, here = self.updater.parameters, self._here[index]
        if len(here) == len(names):
            return hyper
        return hyper[[names.index(name) for name in here]]

    def _reduce(self, index: int, step: Step) -> bool:
        """Sum gradients on the host; False if another device failed in it."""
        memory = self._memory
        try:
            if self.updater.rule is None:
                if index == 0:
                    step.weights, states = self._call_function(step)
                    self._owner._host_states = states
            elif memory.is_leader(index):
                program = self._programs[index]
                assert program is not None or not self._here[index]
                if program is not None:
                    for name in self._here[index]:
                        total = _total(name, step.gradients)
                        if isinstance(total, RowSparseNDArray):
                            write_gradient(program, name, total, ".0")
                        else:
                            program.write("gradient.0", name, total)
        except BaseException:
            step.reduced.fail()
            raise
        if not step.reduced.wait():
            return False
        if self.updater.rule is None and memory.is_leader(index):
            for name in self._here[index]:
                weight = step.weights[name]
                memory.storage[index].write("parameter", name, weight)
        return True

    def _apply(
        self, replica: AnyReplica, commits: bool, updates: bool, undo: list[Undo]
    ) -> None:
        program = self._programs[replica.index]
        if commits:
            undo.append(replica.take_back)
            replica.commit()
        if updates and program is not None:
            undo.append(partial(program.undo, "update"))
            program.launch("update")
            program.wait()

    def _take_back(self, undo: Sequence[Undo], error: BaseException) -> None:
        """An update has failed in its middle: there was none, or nobody knows."""
        undone = [take_back() for take_back in undo]
        if self.updater.rule is None or not all(undone):
            self._memory.torn = (
                f"an earlier update failed in its middle ({error!r}): the parameters "
                "may be a mixture of two steps; set all of them anew"
            )

    def _call_function(self, step: Step) -> tuple[dict[str, Array], dict[str, Any]]:
        """Run the update function on copies; nothing has changed if it raises."""
        updater = self.updater
        assert updater.function is not None
        storage, holder = self._memory.storage, self._memory.placement.holder
        weights: dict[str, Array] = {}
        states = dict(self._owner._host_states)
        for index, name in enumerate(updater.parameters):
            weight = storage[holder(name)].read("parameter", name)
            if name in self._fixed_ones:
                weight[...] = 1
            gradient = np.asarray(_total(name, step.gradients))
            if step.part is not None:
                gradient = gradient * gradient.dtype.type(step.part.share)
            if name in states:
                state = copy.deepcopy(states[name])
            elif updater.create_state is not None:
                state = updater.create_state(index, weight)
            else:
                state = None
            updater.function(index, weight, gradient, state)
            weights[name], states[name] = weight, state
        return weights, states

    def _compile_accumulator(self, device: int) -> None:
        memory, updater = self._memory, self.updater
        if not self._kept[device]:
            return
        plan = plan_accumulate(
            memory.layouts(device)[0],
            self._kept[device],
            updater.accumulates or (),
            memory.devices[device].native,
            memory.gradient_rows,
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
        self._accumulators[device] = program

    def _compile(self, device: int, leads: bool) -> None:
        memory, updater = self._memory, self.updater
        leader = memory.leader(device)
        if leads is not (device == leader) or not self._here[device]:
            return
        assert updater.rule is not None
        rule = get_rule(updater.rule)
        domain = next(domain for domain in memory.domains if device in domain)
        position = domain.index(device)
        layout, _ = memory.layouts(device)
        for name in self._here[device]:
            rule.check(name, layout.tensors[name].shape)
        source = memory.placement.source
        kept = [i for i in range(len(memory.devices)) if source(i) == i]
        one_domain = len(memory.domains) == 1
        native = memory.devices[device].native
        plan = plan_update(
            updater.rule,
            layout,
            self._here[device],
            states=[state for state in updater.states if state != MASTER],
            hyper=len(rule.hyper),
            devices=len(kept) if one_domain else 1,
            part=position,
            parts=len(domain),
            whole=not rule.elementwise,
            native=native,
            fixed_ones=self._fixed_ones,
            master=MASTER in updater.states,
            gradient_rows=memory.gradient_rows,
            lazy=updater.lazy and rule.by_rows,
        )
        shared: dict[str, Segment] = {
            "parameter": memory.storage[device].segments["parameter"]
        }
        if one_domain:
            for k, i in enumerate(kept):
                added_up = self._accumulators[i]
                held, kind = (
                    (memory.storage[i], "gradient")
                    if added_up is None
                    else (added_up, "accumulator")
                )
                for end in ("", "_rows", "_values"):
                    if kind + end in held.segments:
                        shared[f"gradient{end}.{k}"] = held.segments[kind + end]
        owner, lead = self._owner._programs[leader], self._programs[leader]
        for other, kind in ((owner, "state."), (lead, "state."), (lead, "gradient")):
            for name, segment in other.segments.items() if other is not None else ():
                if name.startswith(kind):
                    shared[name] = segment
        self._programs[device] = memory.devices[device].compile(plan, shared)


def _total(name: str, gradients: Sequence[Mapping[str, Gradient]]) -> Gradient:
    return summed([part[name] for part in gradients if name in part])


def summed(parts: Sequence[T]) -> T:
    """The sum of equal arrays, in order; one part is returned as it is.

    All are NumPy arrays, or all are row-sparse.
    """
    total: Any = parts[0]
    for part in parts[1:]:
        total = total + part
    return cast(T, total)
