"""The update of the parameters: sum of gradients and optimizer, all devices or none.

A step has two phases. Every device computes and comes to a barrier; if one fails, all
leave and nothing has changed. Then every device updates its part of the parameters that
its domain shares, straight from the gradients of all devices; no device begins its next
command before all have ended this one, so that nobody reads parameters that another is
still writing. Where devices do not share memory, or the optimizer is a Python function,
gradients cross to the host and are summed there; always in the order of the devices.

Next: `runtime.executor.update_programs` for what is compiled.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtime.actors.barrier import Barrier
from runtime.actors.crew import Crew, shielded
from runtime.actors.meeting import Meeting
from runtime.devices.contract import Program
from runtime.devices.fusing import Phases
from runtime.errors import DeviceError
from runtime.executor.accumulation import Part
from runtime.executor.host_reduction import HostReduction
from runtime.executor.joined import JoinedReplicas, join
from runtime.executor.memory import Memory, free
from runtime.executor.replica import Replica
from runtime.executor.staged import AnyReplica
from runtime.executor.step import Step, Undo
from runtime.executor.step_numbers import StepNumbers
from runtime.executor.update_programs import UpdatePrograms
from runtime.executor.updater import Updater

Array = NDArray[Any]


class Update:
    """What was compiled for one updater over one memory, and how it runs.

    Attributes:
        updater: The updater.
        numbers: Of its steps; on the Trio thread.
        programs: What is compiled.
        reduction: What happens where gradients cross to the host.
        inline: Whether it may run on the Trio thread.
        fixed_ones: Parameters that count as 1 whatever they hold.
    """

    numbers: StepNumbers
    programs: UpdatePrograms
    reduction: HostReduction

    def __init__(
        self,
        updater: Updater,
        memory: Memory,
        fixed_ones: frozenset[str],
        owner: Update | None = None,
    ) -> None:
        """Made by `prepare`; `owner` is what has the states of `updater.shares`."""
        self.updater = updater
        numbers, programs, reduction = (
            (None, None, None)
            if owner is None
            else (owner.numbers, owner.programs, owner.reduction)
        )
        self.numbers = StepNumbers(updater, numbers)
        self.programs = UpdatePrograms(updater, memory, fixed_ones, programs)
        self.reduction = HostReduction(
            updater, memory, fixed_ones, self.programs, reduction
        )
        self.inline = False
        self.fixed_ones = fixed_ones
        self._memory = memory
        self._prepares = False
        self._crosses = updater.rule is None or len(memory.domains) > 1

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
        programs, devices = update.programs, range(len(memory.devices))
        phases: list[Callable[[int], None]] = []
        if updater.accumulates is not None:
            phases.append(programs.compile_accumulator)
        if updater.rule is not None and updater.parameters:
            phases += [
                partial(programs.compile, leads=leads) for leads in (True, False)
            ]
        try:
            for phase in phases:
                await crew.run("compile", [partial(phase, i) for i in devices])
        except BaseException:
            await shielded(
                "free", crew, [partial(free, programs.of(i)) for i in devices]
            )
            raise
        update.inline = not update._crosses and programs.inline
        update._prepares = programs.prepares
        # Another task may have been faster.
        won = memory.updates.setdefault(updater, update)
        if won is not update:
            await shielded(
                "free", crew, [partial(free, programs.of(i)) for i in devices]
            )
        return won

    def new_step(
        self, devices: int, part: Part | None = None, *, fused: bool = False
    ) -> Step:
        """A step of this update; `fused` if each device runs it in one launch."""
        step = Step(devices, part, fused=fused)
        if self._prepares and step.updates:
            step.prepared = Barrier(devices)
        return step

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
        own: list[Undo] = []
        try:
            self._check(step.part, step.error)
            own = self._undo(replica, step.part, computes=compute is not None)
            step.undo += own
            if compute is not None:
                compute()
            self.programs.add(index, step.part)
            self.programs.write_hyper(index, step.hyper)
            if self._crosses and step.updates:
                step.gradients[index] = self.programs.gradients(replica)
        except BaseException:
            if step.part is not None:
                step.part.fail()
            step.computed.fail()
            _run_all(own)
            raise
        step.compute_seconds[index] = time.perf_counter() - begin
        if not step.computed.wait():
            _run_all(own)
            return False
        begin = time.perf_counter()
        try:
            ready = not step.updates or self._make_ready(index, step)
        except BaseException:
            _run_all(own)
            raise
        if not ready:
            _run_all(own)
            return False
        try:
            if self._crosses and step.updates:
                self.reduction.apply(index, step)
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
            and replica.can_fuse(self.programs.updates[replica.index], len(replicas))
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
        program = self.programs.updates[index]
        assert program is not None
        try:
            self._check(step.part, step.error)
            self.programs.write_hyper(index, step.hyper)
            phases = launch(program, meeting)
        except BaseException:
            meeting.fail()
            raise
        step.compute_seconds[index] = phases.compute_seconds
        step.reduce_seconds[index] = phases.update_seconds
        return phases.updated

    def joined(self, replicas: Sequence[AnyReplica]) -> JoinedReplicas | None:
        """All devices' shares of a step as one launch, if that can be."""
        if self._crosses or self._prepares or self.updater.accumulates is not None:
            return None
        return join(replicas, self.programs.updates)

    def run_joined(
        self,
        joined: JoinedReplicas,
        hyper: NDArray[np.float64] | None,
        inputs: Mapping[str, Array],
    ) -> None:
        """`run_here` in one launch."""
        self._check(None)
        for replica in joined.replicas:
            self.programs.write_hyper(replica.index, hyper)
        joined.run(inputs)

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
                self.programs.add(replica.index, part)
        except BaseException:
            if part is not None:
                part.fail()
            raise
        updates = part is None or part.updates
        for replica in replicas:
            self.programs.write_hyper(replica.index, hyper)
            if self._prepares and updates:
                self.programs.prepare(replica.index)
        undo: list[Undo] = []
        try:
            for replica in replicas:
                self._apply(replica, True, updates, undo)
        except BaseException as error:
            self._take_back(undo, error)
            raise

    def _check(self, part: Part | None, error: Exception | None = None) -> None:
        if error is not None:
            raise error
        if self._memory.drops:
            self._memory.check_lost()
        torn = self._memory.torn
        if torn is not None:
            raise DeviceError(torn)
        if part is not None and part.follows_failure:
            raise DeviceError(
                "an earlier batch of this update failed: accumulate its batches anew"
            )

    def _undo(
        self, replica: AnyReplica, part: Part | None, *, computes: bool
    ) -> list[Undo]:
        """What a device takes back of the sums of a step that is none."""
        added = partial(self.programs.take_back, replica.index, part)
        return [added, partial(replica.take_back_sums, "step")] if computes else [added]

    def _make_ready(self, index: int, step: Step) -> bool:
        """Compute beside what is there; False if another device failed in it."""
        if self._crosses and not self.reduction.reduce(index, step):
            return False
        if step.prepared is None:
            return True
        try:
            self.programs.prepare(index)
        except BaseException:
            step.prepared.fail()
            raise
        return step.prepared.wait()

    def _apply(
        self, replica: AnyReplica, commits: bool, updates: bool, undo: list[Undo]
    ) -> None:
        program = self.programs.updates[replica.index]
        if commits:
            undo.append(replica.take_back)
            replica.commit()
        if updates and program is not None:
            undo.append(partial(program.undo, "update"))
            program.launch("update")
            program.wait()

    def _take_back(self, undo: Sequence[Undo], error: BaseException) -> None:
        """An update has failed in its middle: there was none, or nobody knows."""
        undone = _run_all(undo)
        kept = self.updater.rule is not None or self._memory.drops
        if not (kept and undone):
            self._memory.torn = (
                f"an earlier update failed in its middle ({error!r}): the parameters "
                "may be a mixture of two steps; set all of them anew"
            )


def _run_all(undo: Sequence[Undo]) -> bool:
    """Take all of it back; whether that was possible."""
    undone = [take_back() for take_back in undo]
    return all(undone)
