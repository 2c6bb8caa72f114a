"""The training steps of a group: counted, dispatched, withdrawn, waited for.

Next: `runtime.actors.command`, which carries a step to the device threads, then
`runtime.executor.replica` for what each of them does with it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import trio
from numpy.typing import NDArray

from runtime.actors import turns
from runtime.actors.actor import send
from runtime.actors.command import Command
from runtime.actors.meeting import Meeting
from runtime.errors import GradientError
from runtime.executor.accumulation import Part
from runtime.executor.binding import Binding, fixed_ones
from runtime.executor.calls import Calls
from runtime.executor.collective import Update
from runtime.executor.dispatch import Inputs
from runtime.executor.family import Family
from runtime.executor.joined import JoinedReplicas
from runtime.executor.observation import Observe, watched
from runtime.executor.pending import Dispatched, Pending
from runtime.executor.replica import Replica
from runtime.executor.specification import GroupSpec
from runtime.executor.staged import AnyReplica
from runtime.executor.step import Step
from runtime.executor.updater import Updater, nothing

Array = NDArray[Any]

# All devices' work in one step must be shorter than a trip to their threads.
_INLINE_MICROSECONDS = 50.0


class Steps:
    """What `ExecutorGroup` knows of updaters; inputs are checked already."""

    def __init__(
        self,
        spec: GroupSpec,
        calls: Calls,
        binding: Binding,
        slots: trio.Semaphore,
        family: Family,
    ) -> None:
        self._calls = calls
        self._slots = slots
        self._family = family
        self._memory = binding.memory
        self._replicas = binding.replicas
        self._outputs = binding.outputs
        self._for_training = spec.for_training
        self._fixed_ones = fixed_ones(spec.graph)
        # Per update the replicas, if they run a step and it in one launch; or none.
        self._fused: dict[Update, tuple[Replica, ...]] = {}
        # The same where they run on the Trio thread.
        self._joined: dict[Update, JoinedReplicas | None] = {}
        programs = [replica.training for replica in binding.replicas]
        costs = [p.plan.cost(*p.plan.sections) for p in programs if p is not None]
        inline = all(p.inline for p in programs if p is not None)
        self._inline = bool(costs) and inline and sum(costs) < _INLINE_MICROSECONDS

    async def prepared(self, updater: Updater) -> Update:
        """What is compiled for an updater, compiled by the first call."""
        self._calls.check_open()
        update = self._memory.updates.get(updater)
        if update is None:
            if not self._for_training:
                raise GradientError("an update needs a group bound for training")
            async with self._family.unchanged():
                self._calls.check_open()
                self._memory.check_lost()
                update = await Update.prepare(
                    self._calls.crew, self._memory, updater, self._fixed_ones
                )
        return update

    async def forget(self, updater: Updater) -> None:
        """Free an updater's programs and state, and those of all that share it."""
        self._calls.check_open()
        updates = self._memory.updates
        gone = [u for u in updates if u is updater or u.shares is updater]
        freed = [updates.pop(u) for u in gone]
        if freed:
            for update in freed:
                self._fused.pop(update, None)
                self._joined.pop(update, None)
            jobs = [
                partial(
                    replica.forget,
                    [p for update in freed for p in update.programs.of(replica.index)],
                )
                for replica in self._replicas
            ]
            await self._calls.crew.finish("free", jobs)

    async def update(self, updater: Updater, part: Part | None = None) -> None:
        """Add up or update from the gradients that are there."""
        update = await self.prepared(updater)
        step = update.new_step(len(self._replicas), part)
        jobs = [partial(update.run, replica, step, None) for replica in self._replicas]
        command = self._send("update", jobs, update, step)
        await command.wait()
        command.results()

    async def step(
        self,
        inputs: Mapping[str, Array],
        updater: Updater,
        observe: Observe | None = None,
    ) -> None:
        """Forward, backward and update."""
        calls = self._calls
        update = self._memory.updates.get(updater)
        if update is None:
            update = await self.prepared(updater)
        if self._inline and update.inline and observe is None:
            await turns.checkpoint()
            if calls.can_inline:
                self._step_here(inputs, update)
                return
        fused = self._fused_by(update, observe)
        step = update.new_step(len(self._replicas), fused=bool(fused))
        jobs = self._jobs(update, step, fused, inputs, observe)
        command = self._send("step", jobs, update, step)
        await command.wait()
        command.results()

    async def acquire_slot(self) -> None:
        """Reserve a place for a step in flight."""
        try:
            self._slots.acquire_nowait()
        except trio.WouldBlock:
            await self._slots.acquire()
            return
        try:
            await turns.checkpoint()
        except trio.Cancelled:
            self._slots.release()
            raise

    def release_slot(self) -> None:
        """Give a place back."""
        self._slots.release()

    def dispatch(
        self,
        inputs: Mapping[str, Array],
        updater: Updater,
        observe: Observe | None,
        part: Part | None,
        outputs: bool,
    ) -> Pending:
        """Enqueue a step; its place is given back by its end, or if this raises."""
        try:
            self._calls.check_open()
            update = self._memory.updates.get(updater)
            if update is None:
                raise RuntimeError("call `await group.prepare(updater)` before steps")
            inline = self._inline and update.inline and observe is None
            if inline and self._calls.can_inline:
                return self._dispatch_here(inputs, update, part, outputs)
            return self._dispatch(inputs, update, observe, part, outputs)
        except BaseException:
            self._slots.release()
            raise

    def _step_here(
        self, inputs: Mapping[str, Array], update: Update, part: Part | None = None
    ) -> None:
        self._calls.check_open()
        updates = part is None or part.updates
        hyper = update.numbers.next(part) if updates else None
        try:
            joined = self._joined_by(update) if part is None else None
            if joined is None:
                update.run_here(self._replicas, hyper, inputs, part)
            else:
                update.run_joined(joined, hyper, inputs)
        except BaseException as error:
            if updates:
                update.updater.revert()
            error.add_note(f"on {', '.join(self._calls.crew.names)}")
            raise

    def _joined_by(self, update: Update) -> JoinedReplicas | None:
        try:
            return self._joined[update]
        except KeyError:
            joined = self._joined[update] = update.joined(self._replicas)
            return joined

    def _dispatch_here(
        self,
        inputs: Mapping[str, Array],
        update: Update,
        part: Part | None,
        outputs: bool,
    ) -> Pending:
        begin = time.perf_counter()
        merged: list[Array] | None = None
        failure: BaseException | None = None
        try:
            self._step_here(inputs, update, part)
            if outputs:
                merged = self._outputs.allocate()
                for replica in self._replicas:
                    self._outputs.fill(replica.index, merged, replica.output)
        except BaseException as error:
            failure = error
        pending = Pending(outputs=merged, error=failure)
        pending.compute_seconds = time.perf_counter() - begin
        self._slots.release()
        return pending

    def _dispatch(
        self,
        inputs: Mapping[str, Array],
        update: Update,
        observe: Observe | None,
        part: Part | None,
        outputs: bool,
    ) -> Pending:
        kept = Inputs(inputs, len(self._replicas), self._family.drops)
        pending = Pending(copied=kept.copied)
        pending.work = Dispatched(kept, update.updater, observe, part, outputs)
        self._begin(pending, pending.work, update, self._slots.release)
        return pending

    def dispatch_again(self, pending: Pending) -> None:
        """Enqueue a step that was lost; it takes no place."""
        self._calls.check_open()
        work = pending.work
        assert work is not None
        if work.part is not None:
            work.part.retry()
        self._begin(pending, work, self._memory.updates[work.updater])

    def _begin(
        self,
        pending: Pending,
        work: Dispatched,
        update: Update,
        on_leave: Callable[[], None] = nothing,
    ) -> None:
        kept = work.inputs
        fused = self._fused_by(update, work.observe)
        step = update.new_step(len(self._replicas), work.part, fused=bool(fused))
        merged = self._outputs.allocate() if work.outputs else None

        copied = None if kept.copied is None else kept.done
        shares = self._jobs(
            update, step, fused, kept.arrays, work.observe, copied, next_slot=True
        )

        def run(replica: AnyReplica) -> None:
            try:
                took_effect = shares[replica.index]()
            finally:
                kept.done(replica.index)
            if took_effect and merged is not None:
                self._outputs.fill(replica.index, merged, replica.output)

        def finish() -> None:
            pending.compute_seconds = max(step.compute_seconds)
            pending.reduce_seconds = max(step.reduce_seconds)

        jobs = [partial(run, replica) for replica in self._replicas]
        command = self._send("step", jobs, update, step, finish, on_leave)
        pending.begin(command, merged)

    def _fused_by(self, update: Update, observe: Observe | None) -> Sequence[Replica]:
        """The replicas, if they run a step in one launch; or none."""
        if update not in self._fused:
            self._fused[update] = update.fusible(self._replicas)
        return self._fused[update] if observe is None else ()

    def _jobs(
        self,
        update: Update,
        step: Step,
        fused: Sequence[Replica],
        inputs: Mapping[str, Array],
        observe: Observe | None,
        copied: Callable[[int], None] | None = None,
        *,
        next_slot: bool = False,
    ) -> list[Callable[[], bool]]:
        """Each device's share of a step; they return whether it took effect."""
        jobs: list[Callable[[], bool]] = []
        if fused:
            meeting = Meeting(len(fused))
            for member in fused:
                launch = partial(
                    member.compute_and_update,
                    inputs,
                    copied=copied,
                    next_slot=next_slot,
                )
                jobs.append(partial(update.run_fused, member, step, meeting, launch))
            return jobs
        if observe is not None:
            observe.begin()
        for replica in self._replicas:
            compute = partial(replica.compute, inputs, copied, next_slot=next_slot)
            seen = watched(compute, replica, observe, forward=True, heads={})
            jobs.append(partial(update.run, replica, step, seen))
        return jobs

    def _send(
        self,
        label: str,
        jobs: Sequence[Callable[[], object]],
        update: Update,
        step: Step,
        on_finish: Callable[[], None] = nothing,
        on_leave: Callable[[], None] = nothing,
    ) -> Command[object]:
        """Count a step and enqueue it; `on_leave` is called if it is withdrawn too."""
        crew, family = self._calls.crew, self._family

        def finished() -> None:
            failed = any(command.errors)
            update.numbers.finished(step, failed=failed)
            family.updates += step.updates and not failed
            on_finish()
            on_leave()
            family.ended()

        def withdrawn() -> None:
            update.numbers.withdrawn(step)
            on_leave()
            family.ended()

        self._calls.check_open()
        jobs = self._memory.uncounting(jobs)
        command: Command[object] = Command(
            label,
            jobs,
            crew.names,
            together=True,
            on_finish=finished,
            on_withdraw=withdrawn,
        )
        update.numbers.count(step)
        send(command, crew.actors)
        family.sent()
        return command
