"""A batch over several devices: split, one command per device, merge.

Follow one step: `ExecutorGroup.step` slices the batch and enqueues one command for
all devices; each device thread runs its `Replica`, meets the others at a barrier and
updates its part of the parameters (`runtime.executor.collective`).

Next: `runtime.executor.replica`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from numpy.typing import NDArray

from runtime.actors.runtime import Runtime
from runtime.executor.specification import GroupSpec, InputSpec
from runtime.executor.updater import Updater
from runtime.graph.ir import Shape

__all__ = ["ExecutorGroup", "GroupSpec", "InputSpec", "Pending", "Updater"]

Array = NDArray[Any]


class Pending:
    """A dispatched step.

    Attributes:
        compute_seconds: Slowest device's forward and backward; 0 until finished.
        reduce_seconds: Slowest device's sum of gradients and update.
    """

    compute_seconds: float
    reduce_seconds: float

    async def copied(self) -> None:
        """Return when the step no longer reads the caller's input arrays.

        At once for inputs of up to 1 MB, which `dispatch_step` copies; otherwise when
        the devices have copied them. Cancellation withdraws the step if it has not
        begun, else it waits for the copies.
        """
        raise NotImplementedError

    async def wait(self) -> None:
        """Return when the step has finished on all devices; raise what went wrong.

        Cancellation withdraws the step if it has not begun on any device, else the
        call waits for its end and returns.
        """
        raise NotImplementedError

    async def outputs(self) -> list[Array]:
        """Wait, then return the merged outputs (only with `outputs=True`)."""
        raise NotImplementedError

    async def settle(self) -> bool:
        """Leave nothing in flight: withdraw the step, or wait for its end.

        Never raises what went wrong in the step and cannot be cancelled (at most one
        step's time). For `finally` blocks; settle the newest step first.

        Returns:
            Whether the step took effect.
        """
        raise NotImplementedError


class ExecutorGroup:
    """Replicas of one graph, one per device, that run each batch together.

    Attributes:
        spec: What it was made from.
        slices: Each device's rows of the batch; an empty slice idles the device.
        parameter_names, auxiliary_names: In the graph's order.
        parameter_shapes, parameter_dtypes, auxiliary_shapes, auxiliary_dtypes: By name.
        output_names: In the graph's order.
        output_shapes: Of the merged outputs, for the whole batch.
        input_names: Data, labels, states.
    """

    spec: GroupSpec
    slices: tuple[slice, ...]
    parameter_names: tuple[str, ...]
    auxiliary_names: tuple[str, ...]
    parameter_shapes: Mapping[str, Shape]
    parameter_dtypes: Mapping[str, str]
    auxiliary_shapes: Mapping[str, Shape]
    auxiliary_dtypes: Mapping[str, str]
    output_names: tuple[str, ...]
    output_shapes: tuple[Shape, ...]
    input_names: tuple[str, ...]

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
        raise NotImplementedError

    async def forward(self, inputs: Mapping[str, Array], is_train: bool) -> None:
        """Run the graph on a whole batch; inputs not given keep their last values.

        With `is_train` on the training program, else on the inference program, which
        has buffers of its own. Either way `outputs` then reads this forward.
        """
        raise NotImplementedError

    async def backward(self, heads: Mapping[str, Array] | None = None) -> None:
        """Compute gradients; commit the auxiliary states on all devices or on none.

        Args:
            heads: Gradient of the outputs by output name, for the whole (merged)
                outputs; needed where an output is no loss.

        Raises:
            GradientError: there was no training forward before, or a head gradient is
                missing.
        """
        raise NotImplementedError

    async def update(self, updater: Updater) -> None:
        """Sum the gradients over the devices and update the parameters, all or none."""
        raise NotImplementedError

    async def step(self, inputs: Mapping[str, Array], updater: Updater) -> None:
        """Forward, backward and update as one command per device.

        If any device fails to compute, no parameter and no auxiliary state changes.
        Cancellation: withdrawn on all devices or, once begun, run to its end.
        """
        raise NotImplementedError

    async def prepare(self, updater: Updater) -> None:
        """Compile the updater's plan and allocate its state, all zero.

        `step` and `update` do it at first use; `dispatch_step` needs it done before.
        """
        raise NotImplementedError

    async def acquire_slot(self) -> None:
        """Wait until fewer than `in_flight` steps are under way and reserve a place.

        Each call must be followed by `dispatch_step` or `release_slot`.
        """
        raise NotImplementedError

    def release_slot(self) -> None:
        """Give an unused place back."""
        raise NotImplementedError

    def dispatch_step(
        self, inputs: Mapping[str, Array], updater: Updater, *, outputs: bool = True
    ) -> Pending:
        """Enqueue a step and return at once; its place is free again when it ends.

        Args:
            inputs: The whole batch; the arrays are the caller's again after
                `await pending.copied()`.
            updater: Prepared by `prepare`.
            outputs: Whether the step reads its outputs for `pending.outputs()`.
        """
        raise NotImplementedError

    async def predict(self, inputs: Mapping[str, Array]) -> list[Array]:
        """Merged outputs of the inference program for one batch.

        In buffers of its own: `outputs` and a pending `backward` are not disturbed.
        """
        raise NotImplementedError

    async def outputs(self) -> list[Array]:
        """Merged outputs of the last forward or step, as fresh arrays."""
        raise NotImplementedError

    async def device_outputs(self) -> list[list[Array]]:
        """Outputs of the last forward or step, [output][active device], fresh."""
        raise NotImplementedError

    async def input_gradients(self) -> dict[str, Array]:
        """Merged gradients of the data whose request is not null, by name."""
        raise NotImplementedError

    async def device_input_gradients(self) -> dict[str, list[Array]]:
        """The same per active device."""
        raise NotImplementedError

    async def gradients(self) -> dict[str, Array]:
        """Gradients of the parameters, summed over the devices in a fixed order."""
        raise NotImplementedError

    async def device_gradients(self) -> dict[str, list[Array]]:
        """Gradients of the parameters per device."""
        raise NotImplementedError

    async def zero_gradients(self) -> None:
        """Set all gradients, of parameters and of inputs, to zero."""
        raise NotImplementedError

    async def read_parameters(self) -> tuple[dict[str, Array], dict[str, Array]]:
        """Copies of the parameters, and of the auxiliary states (mean of devices)."""
        raise NotImplementedError

    async def read_device_auxiliaries(self) -> list[dict[str, Array]]:
        """Copies of the auxiliary states of each device."""
        raise NotImplementedError

    async def write_parameters(
        self, parameters: Mapping[str, Array], auxiliaries: Mapping[str, Array]
    ) -> None:
        """Set some parameters and auxiliary states on all devices, all or none.

        Raises:
            ShapeError: a shape differs; nothing was changed.
            KeyError: a name that the graph does not have; nothing was changed.
        """
        raise NotImplementedError

    async def get_states(self) -> dict[str, list[Array]]:
        """Copies of the state inputs, per active device."""
        raise NotImplementedError

    async def set_states(
        self,
        states: Mapping[str, Sequence[Array]] | None = None,
        value: float | None = None,
    ) -> None:
        """Set the state inputs: one array per active device, or one number for all."""
        raise NotImplementedError

    async def read_updater_states(
        self, updater: Updater
    ) -> dict[str, dict[str, Array]]:
        """Optimizer state by state name and parameter; rules only."""
        raise NotImplementedError

    async def write_updater_states(
        self, updater: Updater, states: Mapping[str, Mapping[str, Array]]
    ) -> None:
        """Set optimizer state by state name and parameter; rules only."""
        raise NotImplementedError

    async def aclose(self) -> None:
        """Free the programs; idempotent. Memory shared with other groups stays."""
        raise NotImplementedError
