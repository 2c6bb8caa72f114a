"""Passes over the graph by themselves: forward, backward, prediction.

A training step is all of it at once and has its own way (`runtime.executor.steps`).

Next: `runtime.executor.calls` for where a pass runs, `runtime.executor.replica` for
what each device does.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any

from numpy.typing import NDArray

from runtime.actors.actor import send
from runtime.actors.barrier import Barrier
from runtime.actors.command import Command
from runtime.errors import GradientError
from runtime.executor.binding import Binding
from runtime.executor.calls import Calls
from runtime.executor.dispatch import Inputs
from runtime.executor.heads import Heads
from runtime.executor.observation import Observe, watched
from runtime.executor.pace import Pace
from runtime.executor.pending import Pending
from runtime.executor.specification import GroupSpec
from runtime.executor.staged import AnyReplica

Array = NDArray[Any]


class Passes:
    """See the module; inputs are checked already."""

    def __init__(
        self, spec: GroupSpec, calls: Calls, binding: Binding, heads: Heads
    ) -> None:
        self._for_training = spec.for_training
        self._calls = calls
        self._memory = binding.memory
        self._replicas = binding.replicas
        self._outputs = binding.outputs
        self._heads = heads
        self._pace = Pace()  # of inference
        plan = binding.plan
        changes = bool(plan.sections.get("commit") or plan.accumulated)
        self._together = changes or self._memory.drops
        training = binding.replicas[0].training
        self._cheap_training = training is not None and training.inline

    def forward(
        self, inputs: Mapping[str, Array], is_train: bool, observe: Observe | None
    ) -> Awaitable[object]:
        """Run the training or the inference program on a whole batch, when awaited.

        No coroutine of its own: a small forward takes 10 us, and would feel it.
        """
        if is_train and not self._for_training:
            raise GradientError("a training forward needs a group bound for training")
        if observe is not None:
            observe.begin()
        cheap = self._cheap_training if is_train else self._cheap_inference
        jobs: list[Callable[[], None]] = []
        for replica in self._replicas:
            run = partial(replica.forward if is_train else replica.infer, inputs)
            if observe is None:
                jobs.append(run)
            else:
                jobs.append(watched(run, replica, observe, forward=True))
                cheap = False
        short = not (cheap or is_train or observe) and self._paced(jobs)
        counted = self._memory.uncounting(jobs)
        return self._calls.run("forward", counted, cheap=cheap, short=short)

    async def backward(
        self, heads: Mapping[str, Array], observe: Observe | None
    ) -> None:
        """Compute gradients; commit the auxiliary states on all devices or on none."""
        if not self._for_training:
            raise GradientError("backward needs a group bound for training")
        if observe is not None:
            observe.begin()
        parts = self._heads.split(heads)
        computed, committed = (Barrier(len(self._replicas)) for _ in range(2))

        def run(replica: AnyReplica) -> None:
            heads = parts[replica.index]
            try:
                watched(
                    partial(replica.backward, heads), replica, observe, heads=heads
                )()
            except BaseException:
                computed.fail()
                replica.take_back_sums("backward")
                raise
            if not self._together:
                return
            if not computed.wait():
                replica.take_back_sums("backward")
                return
            try:
                replica.commit()
            except BaseException:
                committed.wait()  # nobody begins anything else before this has ended
                for other in self._replicas:
                    other.take_back()
                    other.take_back_sums("backward")
                raise
            committed.arrive()

        jobs = [partial(run, replica) for replica in self._replicas]
        cheap = self._cheap_training and observe is None
        await self._calls.run("backward", jobs, cheap=cheap, together=self._together)

    async def predict(self, inputs: Mapping[str, Array]) -> list[Array]:
        """Merged outputs of the inference program, in buffers of its own."""
        merged = self._outputs.allocate()
        jobs = self._predict_jobs(inputs, merged)
        cheap = self._cheap_inference
        short = not cheap and self._paced(jobs)
        counted = self._memory.uncounting(jobs)
        await self._calls.run("predict", counted, cheap=cheap, short=short)
        return merged

    def dispatch_predict(self, kept: Inputs, pending: Pending) -> None:
        """Enqueue a `predict`."""
        calls = self._calls
        calls.check_open()
        merged = self._outputs.allocate()
        jobs = self._predict_jobs(kept.arrays, merged, kept.done)
        counted = self._memory.uncounting(jobs)
        command = Command("predict", counted, calls.crew.names)
        send(command, calls.crew.actors)
        pending.begin(command, merged)

    @property
    def _cheap_inference(self) -> bool:
        program = self._replicas[0].inference  # none before the first use
        return program is not None and program.inline

    def _predict_jobs(
        self,
        inputs: Mapping[str, Array],
        merged: list[Array],
        copied: Callable[[int], None] | None = None,
    ) -> list[Callable[[], None]]:
        def run(replica: AnyReplica) -> None:
            try:
                replica.predict(inputs, self._outputs, merged, copied)
            finally:
                if copied is not None:
                    copied(replica.index)

        return [partial(run, replica) for replica in self._replicas]

    def _paced(self, jobs: list[Callable[[], None]]) -> bool:
        """Have one device's inference timed; whether it was short the last time.

        Only native code is: what is done in Python may be anything.
        """
        program = self._replicas[0].inference
        if len(jobs) > 1 or program is None or not program.native:
            return False
        jobs[0] = self._pace.timed(jobs[0])
        return self._pace.is_short
