"""A batch over several devices: split, one command per device, merge.

Follow one step: `ExecutorGroup.step` enqueues one command for all devices
(`runtime.executor.steps`); each device thread runs its `Replica` on its rows of the
batch, meets the others at a barrier and updates its part of the parameters
(`runtime.executor.collective`). Everything else that a group does has a file of its own
too: single passes (`passes`), and what is read from the devices and written to them
(`access`, and on it `gradients`, `values`, `whole_state`, `updater_states`).

Next: `runtime.executor.steps`, and `runtime.executor.binding` for what `create` does.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any

import trio
from numpy.typing import NDArray

from runtime.actors.runtime import Runtime
from runtime.executor import updater_states
from runtime.executor.access import Access
from runtime.executor.accumulation import Part
from runtime.executor.binding import Binding, closing_jobs, start
from runtime.executor.calls import Calls
from runtime.executor.checks import check_arrays, check_inputs, check_shares
from runtime.executor.dispatch import Inputs
from runtime.executor.family import Family, over_the_rest
from runtime.executor.gradients import GradientAccess
from runtime.executor.heads import Heads
from runtime.executor.observation import Observe
from runtime.executor.passes import Passes
from runtime.executor.pending import Pending
from runtime.executor.placement import check_devices
from runtime.executor.row_sparse import Gradient
from runtime.executor.setting_states import fill_states, set_states
from runtime.executor.snapshot import Carried, Snapshot, StateArray
from runtime.executor.specification import GroupSpec, InputSpec
from runtime.executor.staged import AnyReplica
from runtime.executor.steps import Steps
from runtime.executor.updater import Updater
from runtime.executor.values import Values
from runtime.executor.whole_state import WholeState
from runtime.graph.compile import parameter_names

__all__ = ["ExecutorGroup", "GroupSpec", "InputSpec", "Pending", "Updater"]

Array = NDArray[Any]


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
        self, spec: GroupSpec, calls: Calls, binding: Binding, family: Family
    ) -> None:
        """Made by `create`."""
        self.family = family
        # Whether the last forward was in training; how often parameters had changed.
        self._forwarded: tuple[bool, int] | None = None
        self._slots = trio.Semaphore(spec.in_flight, max_value=spec.in_flight)
        self.adopt(spec, calls, binding)
        family.groups.append(self)

    @property
    def forwarded(self) -> bool | None:
        """Whether the last pass was a training forward; None if it was none.

        Nor if the parameters have changed since.
        """
        if self._forwarded is None or self._forwarded[1] != self.family.updates:
            return None
        return self._forwarded[0]

    def adopt(self, spec: GroupSpec, calls: Calls, binding: Binding) -> None:
        """Run this from now on: the same on other devices."""
        self.spec = spec
        self.calls = self._calls = calls
        self.binding = binding
        self._memory = binding.memory
        self._replicas = binding.replicas
        self._outputs = binding.outputs
        self._input_gradients = binding.input_gradients
        self._heads = Heads(binding.heads, len(binding.replicas))
        self._passes = Passes(spec, calls, binding, self._heads)
        self._steps = Steps(spec, calls, binding, self._slots, self.family)
        self._access = Access(calls, binding)
        self._gradients = GradientAccess(self._access, binding.plan)
        self._values = Values(self._access)
        self._whole_state = WholeState(self._access, self._gradients.names)

        tensors = binding.plan.tensors
        parameters, auxiliaries = tensors["parameter"], tensors["auxiliary"]
        self.slices = binding.slices
        self.input_names = tuple(i.name for i in spec.inputs)
        self.parameter_names = parameter_names(spec.graph, self.input_names)
        self.auxiliary_names = tuple(node.name for node in spec.graph.auxiliaries)
        self.parameter_shapes = {n: parameters[n].shape for n in self.parameter_names}
        self.parameter_dtypes = {n: parameters[n].dtype for n in self.parameter_names}
        self.auxiliary_shapes = {n: auxiliaries[n].shape for n in self.auxiliary_names}
        self.auxiliary_dtypes = {n: auxiliaries[n].dtype for n in self.auxiliary_names}
        self.output_names = binding.plan.output_names
        self.output_shapes = binding.outputs.shapes
        self._input_shapes = {i.name: i.shape for i in spec.inputs}

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
        if shared is None:
            check_devices(spec, None)
            return cls(spec, *await start(spec, runtime, None), Family(spec.drops))
        family = shared.family

        async def join() -> ExecutorGroup:
            async with family.unchanged():
                gone = [dropped.device for dropped in family.dropped]
                rest = spec.without(gone) if gone else spec
                check_devices(rest, shared.spec)
                shared._memory.check_lost()
                made = await start(rest, runtime, shared._memory)
                return cls(rest, *made, family)

        return await family.call(join)

    @property
    def nbytes(self) -> int:
        """Bytes on all devices that it does not share with other groups."""
        return sum(replica.nbytes for replica in self._replicas)

    @property
    def training_forwards(self) -> int:
        """Training forwards begun so far: part of the key of random numbers.

        Exact while nothing is in flight; setting it resumes a stopped training.
        """
        return min(self._memory.forwards)  # one that was lost does not count

    @training_forwards.setter
    def training_forwards(self, count: int) -> None:
        self._memory.forwards[:] = [count] * len(self._replicas)

    @property
    def predictions(self) -> int:
        """The same of inference forwards."""
        return min(self._memory.predictions)

    @predictions.setter
    def predictions(self, count: int) -> None:
        self._memory.predictions[:] = [count] * len(self._replicas)

    @property
    def seed(self) -> int:
        """The seed of the random operators; setting it acts from the next step."""
        return self._replicas[0].seed

    @seed.setter
    def seed(self, seed: int) -> None:
        for replica in self._replicas:
            replica.seed = seed

    async def aclose(self) -> None:
        """Free the programs; idempotent. Memory shared with other groups stays.

        Waits for the work that is queued before; cancellation ends the waiting only.
        """
        if not self._calls.closed:
            self.family.groups.remove(self)
            await self._calls.close(closing_jobs(self._replicas, self._memory))

    # Forward and backward -----------------------------------------------------------

    def forward(
        self,
        inputs: Mapping[str, Array],
        is_train: bool,
        observe: Observe | None = None,
    ) -> Awaitable[None]:
        """Run the graph on a whole batch; inputs not given keep their last values.

        With `is_train` on the training program, else on the inference program, which
        has buffers of its own. Either way `outputs` then reads this forward. `observe`
        is then called on the device threads with everything inside (as in `backward`
        and `step`), and what it raises fails the call.

        Raises:
            KeyError, ShapeError: an input that was not bound so; nothing has run.
            GradientError: a training forward without `for_training`.
        """
        forward = self._forward
        if self.family.drops:
            return self.family.call(partial(forward, inputs, is_train, observe))
        return forward(inputs, is_train, observe)

    async def _forward(
        self, inputs: Mapping[str, Array], is_train: bool, observe: Observe | None
    ) -> None:
        check_inputs(inputs, self._input_shapes)
        self._forwarded = None
        await self._passes.forward(inputs, is_train, observe)
        self._forwarded = is_train, self.family.updates

    @over_the_rest
    async def backward(
        self,
        heads: Mapping[str, Array] | None = None,
        observe: Observe | None = None,
    ) -> None:
        """Compute gradients; commit the auxiliary states on all devices or on none.

        Args:
            heads: Gradient of the outputs by output name, for the whole (merged)
                outputs; needed where an output is no loss.
            observe: See `forward`.

        Raises:
            GradientError: there was no training forward before, or a head gradient is
                missing.
            ShapeError: a head gradient has not the shape of the output.
        """
        await self._passes.backward(heads or {}, observe)

    async def outputs(self) -> list[Array]:
        """Merged outputs of the last forward or step, as fresh arrays.

        Raises:
            DeviceError: no forward has succeeded yet.
        """
        return await self._access.merged(self._outputs, _output)

    async def device_outputs(self) -> list[list[Array]]:
        """Outputs of the last forward or step, [output][active device], fresh."""
        return await self._access.parts(self.output_names, _output)

    @over_the_rest
    async def predict(self, inputs: Mapping[str, Array]) -> list[Array]:
        """Merged outputs of the inference program for one batch.

        In buffers of its own: `outputs` and a pending `backward` are not disturbed.
        """
        check_inputs(inputs, self._input_shapes)
        return await self._passes.predict(inputs)

    def dispatch_predict(self, inputs: Mapping[str, Array]) -> Pending:
        """Enqueue a `predict` and return at once; takes no slot.

        The arrays of `inputs` are the caller's again after `await pending.copied()`.
        """
        check_inputs(inputs, self._input_shapes)
        kept = Inputs(inputs, len(self._replicas), self.family.drops)
        pending = Pending(copied=kept.copied)

        def begin() -> None:
            self._passes.dispatch_predict(kept, pending)

        begin()
        self.family.follow(pending, begin)
        return pending

    # Updates ------------------------------------------------------------------------

    @over_the_rest
    async def prepare(self, updater: Updater) -> None:
        """Compile the updater's plan and allocate its state, all zero.

        `step` and `update` do it at first use; `dispatch_step` needs it done before.
        The state lives until `forget`, or until the last sharing group is closed.
        """
        await self._steps.prepared(updater)

    @over_the_rest
    async def forget(self, updater: Updater) -> None:
        """Free the state of an updater that is used no more, in all sharing groups."""
        await self._steps.forget(updater)

    @over_the_rest
    async def update(self, updater: Updater, part: Part | None = None) -> None:
        """Sum the gradients over the devices and update the parameters, all or none.

        Args:
            updater: How.
            part: With an updater that accumulates: what to do of adding the gradients
                to the accumulators and updating from these.
        """
        await self._steps.update(updater, part)

    def step(
        self,
        inputs: Mapping[str, Array],
        updater: Updater,
        observe: Observe | None = None,
    ) -> Awaitable[None]:
        """Forward, backward and update as one command per device.

        If any device fails to compute, no parameter and no auxiliary state changes.
        Cancellation: withdrawn on all devices or, once begun, run to its end.

        Raises:
            KeyError, ShapeError: an input that was not bound so; nothing has run.
            GradientError: an output is no loss.
        """
        step = self._step
        if self.family.drops:
            return self.family.call(partial(step, inputs, updater, observe))
        return step(inputs, updater, observe)

    async def _step(
        self, inputs: Mapping[str, Array], updater: Updater, observe: Observe | None
    ) -> None:
        check_inputs(inputs, self._input_shapes)
        self._heads.check({})
        self._forwarded = None
        await self._steps.step(inputs, updater, observe)

    async def acquire_slot(self) -> None:
        """Wait until fewer than `in_flight` steps are under way and reserve a place.

        Each call must be followed by `dispatch_step` or `release_slot`.
        """
        await self._steps.acquire_slot()

    def release_slot(self) -> None:
        """Give an unused place back."""
        self._steps.release_slot()

    def dispatch_step(
        self,
        inputs: Mapping[str, Array],
        updater: Updater,
        *,
        observe: Observe | None = None,
        part: Part | None = None,
        outputs: bool = True,
    ) -> Pending:
        """Enqueue a step and return at once; its place is free again when it ends.

        If it raises, nothing was enqueued and the place is free.

        Args:
            inputs: The whole batch; the arrays are the caller's again after
                `await pending.copied()`.
            updater: Prepared by `prepare`.
            observe: See `forward`.
            part: See `update`.
            outputs: Whether the outputs are copied for `pending.outputs()`.
        """
        try:
            check_inputs(inputs, self._input_shapes)
            self._heads.check({})
        except BaseException:
            self._steps.release_slot()
            raise
        self._forwarded = None
        pending = self._steps.dispatch(inputs, updater, observe, part, outputs)
        if pending.work is not None:

            def again() -> None:
                self._steps.dispatch_again(pending)

            self.family.follow(pending, again, in_order=True)
        return pending

    @over_the_rest
    async def read_updater_states(
        self, updater: Updater
    ) -> dict[str, dict[str, Array]]:
        """Optimizer state by state name and parameter; rules only."""
        update = await self._steps.prepared(updater)
        return await updater_states.read_rule_states(self._access, update)

    @over_the_rest
    async def write_updater_states(
        self,
        updater: Updater,
        states: Mapping[str, Mapping[str, Array]],
        recount: Callable[[], None] | None = None,
    ) -> None:
        """Set optimizer state by state name and parameter; rules only.

        With `recount` the call cannot be withdrawn. It is called on the Trio thread at
        the moment that parts the steps before from those after.
        """
        update = await self._steps.prepared(updater)
        await updater_states.write_rule_states(self._access, update, states, recount)

    @over_the_rest
    async def read_function_states(self, updater: Updater) -> dict[str, Any]:
        """What an update function keeps, by parameter; copies."""
        update = await self._steps.prepared(updater)
        return await updater_states.read_function_states(self._access, update)

    @over_the_rest
    async def write_function_states(
        self,
        updater: Updater,
        states: Mapping[str, Any],
        recount: Callable[[], None] | None = None,
    ) -> None:
        """Let an update function continue from these states.

        `recount` is called on the first device's thread at the moment that parts the
        steps before from those after.
        """
        update = await self._steps.prepared(updater)
        access = self._access
        await updater_states.write_function_states(access, update, states, recount)

    # Gradients ----------------------------------------------------------------------

    async def input_gradients(self) -> dict[str, Array]:
        """Merged gradients of the inputs whose request is not null, by name."""
        merge = self._input_gradients
        if merge is None:
            return {}
        merged = await self._access.merged(merge, _input_gradient)
        return dict(zip(merge.names, merged, strict=True))

    async def device_input_gradients(self) -> dict[str, list[Array]]:
        """The same per active device."""
        names = self._input_gradients.names if self._input_gradients else ()
        parts = await self._access.parts(names, _input_gradient)
        return dict(zip(names, parts, strict=True))

    async def write_input_gradients(
        self, gradients: Mapping[str, Sequence[Array]]
    ) -> None:
        """Set what `device_input_gradients` gives, for some inputs."""
        await self._gradients.write_inputs(gradients)

    async def gradients(self) -> dict[str, Gradient]:
        """Gradients of the parameters, summed over the devices in a fixed order.

        Row-sparse ones as `runtime.row_sparse.RowSparseNDArray`.
        """
        return await self._gradients.total()

    async def device_gradients(self) -> dict[str, list[Gradient]]:
        """Gradients of the parameters per active device."""
        return await self._gradients.per_device()

    async def zero_gradients(self) -> None:
        """Set all gradients, of parameters and of inputs, to zero."""
        await self._gradients.zero()

    # Parameters and states ----------------------------------------------------------

    async def read_parameters(self) -> tuple[dict[str, Array], dict[str, Array]]:
        """Copies of the parameters, and of the auxiliary states (mean of devices).

        Devices that never had rows to train on do not count in the mean.
        """
        names, auxiliary_names = self.parameter_names, self.auxiliary_names
        return await self._values.read(names, auxiliary_names)

    async def read_device_auxiliaries(self) -> list[dict[str, Array]]:
        """Copies of the auxiliary states of each device."""
        return await self._values.read_share_auxiliaries(self.auxiliary_names)

    @over_the_rest
    async def copy_state(
        self, updater: Updater | None, place: Callable[[StateArray], Array]
    ) -> list[Carried]:
        """Copy parameters, auxiliary states and optimizer states between two steps.

        Args:
            updater: Whose states to copy; None copies none. Rules only.
            place: Gives the array that one is copied into, of its shape and dtype;
                called on the Trio thread.

        Returns:
            What each share of the batch carries on besides.
        """
        update = None if updater is None else await self._steps.prepared(updater)
        wishes = self.spec.gradients.items() if self.spec.for_training else ()
        added = {name for name, wish in wishes if wish == "add"}
        return await self._whole_state.copy(update, place, added)

    @over_the_rest
    async def snapshot(self, updater: Updater, at_once: Callable[[], None]) -> Snapshot:
        """Copies of parameters, auxiliary and optimizer states between two steps.

        Args:
            updater: Whose states to copy.
            at_once: Called at the moment that parts the steps before from those after,
                where steps are counted: on the Trio thread, or if there is no rule on
                the first device's.
        """
        update = await self._steps.prepared(updater)
        copied = await self._whole_state.snapshot(update, at_once)
        copied.parameters = {n: copied.parameters[n] for n in self.parameter_names}
        copied.auxiliaries = [
            {n: part[n] for n in self.auxiliary_names if n in part}
            for part in copied.auxiliaries
        ]
        return copied

    async def write_carried(self, shares: Sequence[Carried]) -> None:
        """Let each share of the batch carry on what `copy_state` has returned.

        Raises:
            ValueError: not one entry for each of `spec.devices`.
            ShapeError, KeyError: a gradient that is not of this graph.
        """
        check_shares(len(shares), len(self.spec.devices))
        await self._whole_state.write_carried(shares)

    async def write_share_auxiliaries(
        self, values: Sequence[Mapping[str, Array]]
    ) -> None:
        """Set the auxiliary states of each share of the batch, all or none.

        Raises:
            ValueError: not one entry for each of `spec.devices`.
            ShapeError, KeyError: as `write_parameters`.
        """
        check_shares(len(values), len(self.spec.devices))
        shapes = self.auxiliary_shapes
        await self._values.write_share_auxiliaries(
            [check_arrays("auxiliary state", part, shapes) for part in values]
        )

    async def write_parameters(
        self, parameters: Mapping[str, Array], auxiliaries: Mapping[str, Array]
    ) -> None:
        """Set some parameters and auxiliary states on all devices, all or none.

        Raises:
            ShapeError: a shape differs; nothing was changed.
            KeyError: a name that the graph does not have; nothing was changed.
        """
        self.family.updates += 1
        await self._values.write(
            check_arrays("parameter", parameters, self.parameter_shapes),
            check_arrays("auxiliary state", auxiliaries, self.auxiliary_shapes),
        )

    async def get_states(self) -> dict[str, list[Array]]:
        """Copies of the state inputs, per active device."""
        names = tuple(i.name for i in self.spec.states)
        parts = await self._access.parts(names, _state)
        return dict(zip(names, parts, strict=True))

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
        if states is not None:
            await set_states(self._access, states)
        elif value is not None:
            await fill_states(self._access, value)


def _output(replica: AnyReplica, name: str, out: Array | None = None) -> Array:
    return replica.output(name, out)


def _input_gradient(replica: AnyReplica, name: str, out: Array | None = None) -> Array:
    return replica.input_gradient(name, out)


def _state(replica: AnyReplica, name: str) -> Array:
    return replica.states.read(name)
