"""A batch over several devices: split, one command per device, merge.

Follow one step: `ExecutorGroup.step` enqueues one command for all devices; each device
thread runs its `Replica` on its rows of the batch, meets the others at a barrier and
updates its part of the parameters (`runtime.executor.collective`).

Next: `runtime.executor.replica`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

import numpy as np
import trio
from numpy.typing import NDArray

from runtime.actors.actor import send
from runtime.actors.barrier import Barrier
from runtime.actors.command import Command
from runtime.actors.crew import Crew
from runtime.actors.runtime import Runtime
from runtime.errors import ClosedError, GradientError, ShapeError
from runtime.executor.binding import Binding, bind, closing_jobs, fixed_ones
from runtime.executor.collective import Step, Update, summed
from runtime.executor.dispatch import COPY_LIMIT, Inputs
from runtime.executor.exchange import check_arrays, gather, write_parameters
from runtime.executor.memory import Memory, free, mean
from runtime.executor.merging import Merge
from runtime.executor.pending import Pending
from runtime.executor.replica import Replica
from runtime.executor.specification import GroupSpec, InputSpec
from runtime.executor.updater import Updater, nothing
from runtime.graph.compile import parameter_names

__all__ = ["ExecutorGroup", "GroupSpec", "InputSpec", "Pending", "Updater"]

Array = NDArray[Any]
T = TypeVar("T")

# So long may work on the Trio thread keep other tasks waiting.
_YIELD_SECONDS = 1e-3


class ExecutorGroup:
    """Replicas of one graph, one per device, that run each batch together.

    Any number of tasks may call it; calls take effect one after another, in the order
    in which they were enqueued, on all devices alike. A cancelled call was withdrawn on
    all devices, or has run to its end on all of them.

    Attributes:
        spec: What it was made from.
        slices: Each device's rows of the batch; an empty slice idles the device.
        parameter_names, auxiliary_names: In the graph's order.
        parameter_shapes, parameter_dtypes, auxiliary_shapes, auxiliary_dtypes: By name.
        output_names: In the graph's order.
        output_shapes: Of the merged outputs, for the whole batch.
        input_names: Data, labels, states.
    """

    def __init__(
        self, spec: GroupSpec, runtime: Runtime, crew: Crew, binding: Binding
    ) -> None:
        """Made by `create`."""
        self.spec = spec
        self._runtime = runtime
        self._crew = crew
        self._memory: Memory = binding.memory
        self._replicas: tuple[Replica, ...] = binding.replicas
        self._outputs: Merge = binding.outputs
        self._heads = binding.heads
        self._input_gradients = binding.input_gradients
        self._fixed_ones = fixed_ones(spec.graph)
        self._closed = False
        self._slots = trio.Semaphore(spec.in_flight, max_value=spec.in_flight)

        plan = binding.plan
        self._commits = bool(plan.sections.get("commit"))
        self.slices = binding.slices
        self.input_names = tuple(i.name for i in spec.inputs)
        self.parameter_names = parameter_names(spec.graph, self.input_names)
        self.auxiliary_names = tuple(node.name for node in spec.graph.auxiliaries)
        parameters = plan.tensors["parameter"]
        auxiliaries = plan.tensors["auxiliary"]
        self.parameter_shapes = {n: parameters[n].shape for n in self.parameter_names}
        self.parameter_dtypes = {n: parameters[n].dtype for n in self.parameter_names}
        self.auxiliary_shapes = {n: auxiliaries[n].shape for n in self.auxiliary_names}
        self.auxiliary_dtypes = {n: auxiliaries[n].dtype for n in self.auxiliary_names}
        self.output_names = plan.output_names
        self.output_shapes = self._outputs.shapes
        self._input_shapes = {i.name: i.shape for i in spec.inputs}
        self._gradient_names = tuple(plan.tensors.get("gradient", ()))

        # What decides whether a call may run on the Trio thread.
        alone = self._replicas[0] if len(self._replicas) == 1 else None
        if os.environ.get("ASYNCMOD_INLINE", "1") == "0":
            alone = None
        self._alone = alone
        self._actor = crew.actors[0]
        training = alone.training if alone is not None else None
        self._inline_training = training is not None and training.inline
        layouts = (self._memory.parameters, self._memory.auxiliaries)
        self._small = sum(layout.nbytes for layout in layouts) <= COPY_LIMIT

    @classmethod
    async def create(
        cls, spec: GroupSpec, runtime: Runtime, shared: ExecutorGroup | None = None
    ) -> ExecutorGroup:
        """Compile the graph on every device, on the devices' own threads.

        Args:
            spec: What to make.
            runtime: Owner of the device threads.
            shared: A group on the same devices; parameters, auxiliary states,
                gradients and optimizer state are one memory with it (reshape, shared
                modules). Close the groups in any order.

        Raises:
            ShapeError, GraphError, GradientError: from the compilation.
            DeviceError: a device does not exist or cannot run the graph.
            ValueError: the specification contradicts itself.

        After an error or a cancellation nothing is left behind.
        """
        if len(spec.workload) != len(spec.devices):
            raise ValueError(
                f"workload (={spec.workload}) must have one share for each of the "
                f"{len(spec.devices)} devices"
            )
        if len(set(spec.devices)) != len(spec.devices):
            listed = ", ".join(map(str, spec.devices))
            raise ValueError(f"devices (={listed}) must all be different")
        if shared is not None and shared.spec.devices != spec.devices:
            raise ValueError(
                f"devices (={', '.join(map(str, spec.devices))}) must be those of the "
                f"shared group ({', '.join(map(str, shared.spec.devices))})"
            )
        crew = Crew([runtime.actor(device) for device in spec.devices])
        memory = None if shared is None else shared._memory
        return cls(spec, runtime, crew, await bind(spec, crew, memory))

    @property
    def training_forwards(self) -> int:
        """Training forwards begun so far: part of the key of random numbers.

        Exact while nothing is in flight; setting it resumes a stopped training.
        """
        return self._memory.forwards[0]

    @training_forwards.setter
    def training_forwards(self, count: int) -> None:
        self._memory.forwards[:] = [count] * len(self._replicas)

    # Forward and backward -----------------------------------------------------------

    async def forward(self, inputs: Mapping[str, Array], is_train: bool) -> None:
        """Run the graph on a whole batch; inputs not given keep their last values.

        With `is_train` on the training program, else on the inference program, which
        has buffers of its own. Either way `outputs` then reads this forward.

        Raises:
            ShapeError: an input that differs from what was bound; nothing has run.
        """
        self._check_inputs(inputs)
        if is_train:
            if not self.spec.for_training:
                raise GradientError(
                    "a training forward needs a group bound with for_training=True"
                )
            jobs = [partial(replica.forward, inputs) for replica in self._replicas]
            await self._run("forward", jobs, self._inline_training)
        else:
            jobs = [partial(replica.infer, inputs) for replica in self._replicas]
            await self._run("forward", jobs, self._inline_inference)

    async def backward(self, heads: Mapping[str, Array] | None = None) -> None:
        """Compute gradients; commit the auxiliary states on all devices or on none.

        Args:
            heads: Gradient of the outputs by output name, for the whole (merged)
                outputs; needed where an output is no loss.

        Raises:
            GradientError: there was no training forward before, or a head gradient is
                missing.
            ShapeError: a head gradient has not the shape of the output.
        """
        if not self.spec.for_training:
            raise GradientError("backward needs a group bound with for_training=True")
        parts = self._split_heads(heads or {})
        computed = Barrier(len(self._replicas))

        def run(replica: Replica, part: dict[str, Array]) -> None:
            try:
                replica.backward(part)
            except BaseException:
                computed.fail()
                raise
            if self._commits and computed.wait():
                replica.commit()

        jobs = [partial(run, r, p) for r, p in zip(self._replicas, parts, strict=True)]
        await self._run("backward", jobs, self._inline_training)

    async def predict(self, inputs: Mapping[str, Array]) -> list[Array]:
        """Merged outputs of the inference program for one batch.

        In buffers of its own: `outputs` and a pending `backward` are not disturbed.
        """
        self._check_inputs(inputs)
        merged = self._outputs.allocate()
        await self._run(
            "predict", self._predict_jobs(inputs, merged), self._inline_inference
        )
        return merged

    def dispatch_predict(self, inputs: Mapping[str, Array]) -> Pending:
        """Enqueue a `predict` and return at once; takes no slot.

        The arrays of `inputs` are the caller's again after `await pending.copied()`.
        """
        self._check_inputs(inputs)
        merged = self._outputs.allocate()
        if self._inline_inference and self._actor.idle:
            [job] = self._predict_jobs(inputs, merged)
            return Pending(self._breathe, outputs=merged, error=self._attempt(job))
        kept = Inputs(inputs, len(self._replicas))
        jobs = self._predict_jobs(kept.arrays, merged, kept.done)
        command = Command("predict", jobs, self._crew.names)
        send(command, self._crew.actors)
        return Pending(self._breathe, command, kept.copied, merged)

    # Updates ------------------------------------------------------------------------

    async def prepare(self, updater: Updater) -> None:
        """Compile the updater's plan and allocate its state, all zero.

        `step` and `update` do it at first use; `dispatch_step` needs it done before.
        The state lives until `forget` or until the last sharing group is closed.
        """
        await self._prepared(updater)

    async def forget(self, updater: Updater) -> None:
        """Free the state of an updater that is used no more, in all sharing groups."""
        self._check_open()
        update = self._memory.updates.pop(updater, None)
        if update is not None:
            indexes = range(len(self._replicas))
            jobs = [partial(free, [update.program(i)]) for i in indexes]
            await self._crew.finish("free", jobs)

    async def update(self, updater: Updater) -> None:
        """Sum the gradients over the devices and update the parameters, all or none."""
        update = await self._prepared(updater)
        step = Step(len(self._replicas))
        jobs = [partial(update.run, replica, step, None) for replica in self._replicas]
        command = self._send_step("update", jobs, update, step)
        await command.wait()
        command.results()

    async def step(self, inputs: Mapping[str, Array], updater: Updater) -> None:
        """Forward, backward and update as one command per device.

        If any device fails to compute, no parameter and no auxiliary state changes.
        Cancellation: withdrawn on all devices or, once begun, run to its end.
        """
        self._check_inputs(inputs)
        update = self._memory.updates.get(updater)
        if update is None:
            update = await self._prepared(updater)
        if self._inline_training and update.inline:
            await self._breathe()
            if self._actor.idle:
                self._step_inline(inputs, update)
                return
        self._check_open()
        step = Step(len(self._replicas))
        jobs = [
            partial(update.run, replica, step, partial(replica.compute, inputs))
            for replica in self._replicas
        ]
        command = self._send_step("step", jobs, update, step)
        await command.wait()
        command.results()

    async def acquire_slot(self) -> None:
        """Wait until fewer than `in_flight` steps are under way and reserve a place.

        Each call must be followed by `dispatch_step` or `release_slot`.
        """
        try:
            self._slots.acquire_nowait()
        except trio.WouldBlock:
            await self._slots.acquire()
        else:
            try:
                await self._breathe()
            except trio.Cancelled:
                self._slots.release()
                raise

    def release_slot(self) -> None:
        """Give an unused place back."""
        self._slots.release()

    def dispatch_step(
        self, inputs: Mapping[str, Array], updater: Updater, *, outputs: bool = True
    ) -> Pending:
        """Enqueue a step and return at once; its place is free again when it ends.

        If it raises, the place is free as well.

        Args:
            inputs: The whole batch; the arrays are the caller's again after
                `await pending.copied()`.
            updater: Prepared by `prepare`.
            outputs: Whether the step reads its outputs for `pending.outputs()`.
        """
        try:
            self._check_open()
            self._check_inputs(inputs)
            update = self._memory.updates.get(updater)
            if update is None:
                raise RuntimeError("call `await group.prepare(updater)` before steps")
            if self._inline_training and update.inline and self._actor.idle:
                return self._dispatch_inline(inputs, update, outputs)
            return self._dispatch(inputs, update, outputs)
        except BaseException:
            self._slots.release()
            raise

    async def read_updater_states(
        self, updater: Updater
    ) -> dict[str, dict[str, Array]]:
        """Optimizer state by state name and parameter; rules only."""
        update = await self._prepared(updater)
        jobs = gather(self._replicas, lambda _: None, lambda _: update.read_states())
        states = (await self._run("read", jobs, self._small))[0]
        assert states is not None
        return states

    async def write_updater_states(
        self, updater: Updater, states: Mapping[str, Mapping[str, Array]]
    ) -> None:
        """Set optimizer state by state name and parameter; rules only."""
        update = await self._prepared(updater)
        shapes = {name: self.parameter_shapes[name] for name in updater.parameters}
        checked = {}
        for state, values in states.items():
            if state not in updater.states:
                raise KeyError(
                    f"`{state}` is no state of the optimizer; there are "
                    f"{', '.join(updater.states) or 'none'}"
                )
            checked[state] = check_arrays(f"state {state} of", values, shapes)
        indexes = range(len(self._replicas))
        jobs = [partial(update.write_states, i, checked) for i in indexes]
        await self._run("write", jobs, self._small)

    # Results ------------------------------------------------------------------------

    async def outputs(self) -> list[Array]:
        """Merged outputs of the last forward or step, as fresh arrays.

        Raises:
            DeviceError: no forward has succeeded yet.
        """
        merged = self._outputs.allocate()
        jobs = [
            partial(self._outputs.fill, replica.index, merged, replica.output)
            for replica in self._replicas
        ]
        await self._run("read outputs", jobs, self._inline_outputs)
        return merged

    async def device_outputs(self) -> list[list[Array]]:
        """Outputs of the last forward or step, [output][active device], fresh."""
        parts = await self._read_parts(self.output_names, Replica.output)
        return [list(column) for column in zip(*parts, strict=True)]

    async def input_gradients(self) -> dict[str, Array]:
        """Merged gradients of the inputs whose request is not null, by name."""
        merge = self._input_gradients
        if merge is None:
            return {}
        merged = merge.allocate()
        jobs = [
            partial(merge.fill, replica.index, merged, replica.input_gradient)
            for replica in self._replicas
        ]
        await self._run("read gradients", jobs, self._inline_training)
        return dict(zip(merge.names, merged, strict=True))

    async def device_input_gradients(self) -> dict[str, list[Array]]:
        """The same per active device."""
        names = self._input_gradients.names if self._input_gradients else ()
        parts = await self._read_parts(names, Replica.input_gradient)
        return {name: [part[k] for part in parts] for k, name in enumerate(names)}

    async def gradients(self) -> dict[str, Array]:
        """Gradients of the parameters, summed over the devices in a fixed order."""
        names = self._gradient_names

        def total(parts: list[list[Array]]) -> dict[str, Array]:
            columns = zip(*parts, strict=True)
            return {n: summed(list(c)) for n, c in zip(names, columns, strict=True)}

        jobs = gather(
            self._replicas, lambda replica: [replica.gradient(n) for n in names], total
        )
        gradients = (await self._run("read gradients", jobs, self._small))[0]
        assert gradients is not None
        return gradients

    async def device_gradients(self) -> dict[str, list[Array]]:
        """Gradients of the parameters per active device."""
        names = self._gradient_names
        parts = await self._read_parts(names, Replica.gradient)
        return {name: [part[k] for part in parts] for k, name in enumerate(names)}

    async def zero_gradients(self) -> None:
        """Set all gradients, of parameters and of inputs, to zero."""
        jobs = [replica.zero_gradients for replica in self._replicas]
        await self._run("zero gradients", jobs, self._small)

    # Parameters and states ----------------------------------------------------------

    async def read_parameters(self) -> tuple[dict[str, Array], dict[str, Array]]:
        """Copies of the parameters, and of the auxiliary states (mean of devices).

        Devices that never had rows to train on do not count in the mean.
        """
        memory = self._memory
        trained = [i for i, has_rows in enumerate(memory.trained) if has_rows] or [0]

        def read(replica: Replica) -> tuple[dict[str, Array], dict[str, Array]]:
            storage, first = replica.storage, replica.index == 0
            names = self.parameter_names if first else ()
            return (
                {n: storage.read("parameter", n) for n in names},
                {n: storage.read("auxiliary", n) for n in self.auxiliary_names},
            )

        def combine(
            parts: list[tuple[dict[str, Array], dict[str, Array]]],
        ) -> tuple[dict[str, Array], dict[str, Array]]:
            auxiliaries = {
                n: mean([parts[i][1][n] for i in trained]) for n in self.auxiliary_names
            }
            return parts[0][0], auxiliaries

        jobs = gather(self._replicas, read, combine)
        result = (await self._run("read parameters", jobs, self._small))[0]
        assert result is not None
        return result

    async def read_device_auxiliaries(self) -> list[dict[str, Array]]:
        """Copies of the auxiliary states of each device."""

        def read(replica: Replica) -> dict[str, Array]:
            storage = replica.storage
            return {n: storage.read("auxiliary", n) for n in self.auxiliary_names}

        jobs = [partial(read, replica) for replica in self._replicas]
        return await self._run("read parameters", jobs, self._small)

    async def write_parameters(
        self, parameters: Mapping[str, Array], auxiliaries: Mapping[str, Array]
    ) -> None:
        """Set some parameters and auxiliary states on all devices, all or none.

        Raises:
            ShapeError: a shape differs; nothing was changed.
            KeyError: a name that the graph does not have; nothing was changed.
        """
        parameters = check_arrays("parameter", parameters, self.parameter_shapes)
        auxiliaries = check_arrays(
            "auxiliary state", auxiliaries, self.auxiliary_shapes
        )
        jobs = write_parameters(self._memory, self._replicas, parameters, auxiliaries)
        await self._run("write parameters", jobs, self._small)

    async def get_states(self) -> dict[str, list[Array]]:
        """Copies of the state inputs, per active device."""
        names = tuple(i.name for i in self.spec.states)
        parts = await self._read_parts(names, Replica.state)
        return {name: [part[k] for part in parts] for k, name in enumerate(names)}

    async def set_states(
        self,
        states: Mapping[str, Sequence[Array]] | None = None,
        value: float | None = None,
    ) -> None:
        """Set state inputs: one array per active device, or one number for all.

        Raises:
            ValueError: not exactly one of both, or not one array per active device.
            KeyError, ShapeError: an unknown name, a wrong shape.
        """
        if (states is None) is (value is None):
            raise ValueError("give either `states` or `value`")
        active = [replica for replica in self._replicas if not replica.is_idle]
        shapes = [replica.state_shapes for replica in active]
        parts: list[dict[str, Array]]
        if states is None:
            parts = [{n: np.full(s, value) for n, s in each.items()} for each in shapes]
        else:
            for name, arrays in states.items():
                if len(arrays) != len(active):
                    raise ValueError(
                        f"state `{name}` has {len(arrays)} arrays, but there are "
                        f"{len(active)} devices with rows"
                    )
            parts = [
                check_arrays("state", {n: a[k] for n, a in states.items()}, each)
                for k, each in enumerate(shapes)
            ]
        jobs: list[Callable[[], None]] = [nothing] * len(self._replicas)
        for replica, part in zip(active, parts, strict=True):
            jobs[replica.index] = partial(replica.set_states, part)
        await self._run("write states", jobs, self._small)

    async def aclose(self) -> None:
        """Free the programs; idempotent. Memory shared with other groups stays.

        Waits for the work that is queued before; cancellation ends the waiting only.
        """
        if self._closed:
            return
        self._closed = True
        if not self._runtime.stopped:
            jobs = closing_jobs(self._replicas, self._memory)
            await self._crew.finish("close", jobs)

    # Inside -------------------------------------------------------------------------

    @property
    def _inline_inference(self) -> bool:
        alone = self._alone
        program = alone.inference if alone is not None else None
        return program is not None and program.inline

    @property
    def _inline_outputs(self) -> bool:
        return self._inline_training or self._inline_inference

    def _check_open(self) -> None:
        if self._closed or self._runtime.closed:
            raise ClosedError(
                "the executors are closed: their module or its runtime has ended"
            )

    def _check_inputs(self, inputs: Mapping[str, Array]) -> None:
        shapes = self._input_shapes
        for name, array in inputs.items():
            shape = shapes.get(name)
            if shape is None:
                raise KeyError(
                    f"`{name}` is no input; the inputs are {', '.join(shapes)}"
                )
            if array.shape != shape:
                raise ShapeError(
                    f"`{name}` has shape {array.shape}, but {shape} is bound"
                )

    async def _breathe(self) -> None:
        """Let a cancellation in, and other tasks run once per millisecond."""
        runtime = self._runtime
        if time.perf_counter() - runtime.last_yield < _YIELD_SECONDS:
            await trio.lowlevel.checkpoint_if_cancelled()
        else:
            await trio.lowlevel.checkpoint()
            runtime.last_yield = time.perf_counter()

    async def _run(
        self, label: str, jobs: Sequence[Callable[[], T]], inline: bool
    ) -> list[T]:
        """Run one job per device: here if that is cheap, else on their threads."""
        self._check_open()
        if inline and self._alone is not None:
            await self._breathe()
            self._check_open()
            if self._actor.idle:
                try:
                    return [jobs[0]()]
                except BaseException as error:
                    error.add_note(f"on {self._crew.names[0]}")
                    raise
        return await self._crew.run(label, jobs)

    def _attempt(self, job: Callable[[], object]) -> BaseException | None:
        try:
            job()
        except BaseException as error:
            error.add_note(f"on {self._crew.names[0]}")
            return error
        return None

    async def _prepared(self, updater: Updater) -> Update:
        self._check_open()
        update = self._memory.updates.get(updater)
        if update is None:
            if not self.spec.for_training:
                raise GradientError("an update needs a group bound for training")
            update = await Update.prepare(
                self._crew, self._memory, updater, self._fixed_ones
            )
        return update

    def _step_inline(self, inputs: Mapping[str, Array], update: Update) -> None:
        self._check_open()
        replica = self._replicas[0]
        hyper = update.next_hyper()
        try:
            update.run_alone(replica, hyper, inputs)
        except BaseException as error:
            update.updater.revert()
            error.add_note(f"on {self._crew.names[0]}")
            raise

    def _dispatch_inline(
        self, inputs: Mapping[str, Array], update: Update, outputs: bool
    ) -> Pending:
        begin = time.perf_counter()
        merged: list[Array] | None = None
        error = self._attempt(partial(self._step_inline, inputs, update))
        if error is None and outputs:
            merged = []
            self._outputs.fill(0, merged, self._replicas[0].output)
        pending = Pending(self._breathe, outputs=merged, error=error)
        pending.compute_seconds = time.perf_counter() - begin
        self._slots.release()
        return pending

    def _dispatch(
        self, inputs: Mapping[str, Array], update: Update, outputs: bool
    ) -> Pending:
        kept = Inputs(inputs, len(self._replicas))
        step = Step(len(self._replicas))
        merged = self._outputs.allocate() if outputs else None

        def run(replica: Replica) -> None:
            compute = partial(replica.compute, kept.arrays, kept.done, next_slot=True)
            try:
                done = update.run(replica, step, compute)
            finally:
                kept.done(replica.index)
            if done and merged is not None:
                self._outputs.fill(replica.index, merged, replica.output)

        def finish() -> None:
            pending.compute_seconds = max(step.compute_seconds)
            pending.reduce_seconds = max(step.reduce_seconds)

        jobs = [partial(run, replica) for replica in self._replicas]
        command = self._send_step(
            "step", jobs, update, step, on_finish=finish, on_leave=self._slots.release
        )
        pending = Pending(self._breathe, command, kept.copied, merged)
        return pending

    def _send_step(
        self,
        label: str,
        jobs: Sequence[Callable[[], object]],
        update: Update,
        step: Step,
        *,
        on_finish: Callable[[], None] = nothing,
        on_leave: Callable[[], None] = nothing,
    ) -> Command[object]:
        """Count a step and enqueue it; `on_leave` is called if it is withdrawn too."""
        self._check_open()

        def finished() -> None:
            update.finished(step, failed=any(command.errors))
            on_finish()
            on_leave()

        def withdrawn() -> None:
            update.withdrawn(step)
            on_leave()

        update.count(step)
        command: Command[object] = Command(
            label, jobs, self._crew.names, on_finish=finished, on_withdraw=withdrawn
        )
        send(command, self._crew.actors)
        return command

    def _predict_jobs(
        self,
        inputs: Mapping[str, Array],
        merged: list[Array],
        copied: Callable[[int], None] | None = None,
    ) -> list[Callable[[], None]]:
        def run(replica: Replica) -> None:
            try:
                replica.predict(inputs, self._outputs, merged, copied)
            finally:
                if copied is not None:
                    copied(replica.index)

        return [partial(run, replica) for replica in self._replicas]

    async def _read_parts(
        self, names: Sequence[str], read: Callable[[Replica, str], Array]
    ) -> list[list[Array]]:
        """What each active device has of these."""

        def run(replica: Replica) -> list[Array]:
            return [] if replica.is_idle else [read(replica, name) for name in names]

        jobs = [partial(run, replica) for replica in self._replicas]
        parts = await self._run("read", jobs, self._inline_outputs)
        active = zip(self._replicas, parts, strict=True)
        return [part for replica, part in active if not replica.is_idle]

    def _split_heads(self, heads: Mapping[str, Array]) -> list[dict[str, Array]]:
        """Each device's part of the head gradients."""
        parts: list[dict[str, Array]] = [{} for _ in self._replicas]
        merge = self._heads
        if merge is None:
            return parts
        missing = [name for name in merge.names if name not in heads]
        if missing:
            raise GradientError(
                f"output `{missing[0]}` is no loss, so backward needs its gradient: "
                "give one array for each output (out_grads), or end the graph in a "
                "loss such as MakeLoss"
            )
        shapes = dict(zip(merge.names, merge.shapes, strict=True))
        wanted = {name: heads[name] for name in merge.names}
        checked = check_arrays("head gradient", wanted, shapes)
        for part, places in zip(parts, merge.parts, strict=True):
            if places is None:
                continue
            for name, place in zip(merge.names, places, strict=True):
                part[name] = checked[name] if place is None else checked[name][place]
        return parts
