"""One device's share of a group: its programs, and its part of every array.

All methods run on the device's thread, or on the Trio thread while that thread has
nothing to do.

Next: `runtime.executor.collective`, where the devices of a step meet.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtime.actors.meeting import Meeting
from runtime.devices.contract import (
    FIRST_PREDICTION,
    FIRST_STEP,
    Device,
    Program,
    StepKey,
)
from runtime.devices.fusing import Fused, Fusing, Phases, fusing
from runtime.errors import DeviceError, GradientError
from runtime.executor.memory import Memory, free
from runtime.executor.merging import Merge
from runtime.executor.observation import Observe, UnfusedPass, ignore
from runtime.executor.row_sparse import Gradient, clear_gradient, read_gradient
from runtime.executor.slots import (
    FORWARD_SLOT,
    INFERENCE_SLOTS,
    PREDICT_SLOT,
    own_nbytes,
)
from runtime.executor.specification import GroupSpec, plan_request
from runtime.executor.split import Selection, is_empty, select, sliced_shape
from runtime.executor.state_inputs import StateInputs
from runtime.graph.compile import compile_plan
from runtime.graph.ir import Shape
from runtime.graph.plan import Plan, Section
from runtime.graph.request import Request

Array = NDArray[Any]


class Replica:
    """See the module.

    Attributes:
        index: Position of the device in the group.
        states: This device's part of the state inputs.
        rows: Its rows of the batch.
        is_idle: Whether it has no rows, and only keeps parameters.
        seed: Seed of the random operators.
        training: The training program; None if idle or not for training.
        inference: The inference program; None until first used.
    """

    def __init__(
        self,
        index: int,
        rows: slice,
        device: Device,
        spec: GroupSpec,
        memory: Memory,
        plan: Plan | None,
    ) -> None:
        self.index = index
        self.rows = rows
        self.is_idle = is_empty(rows)
        self.training: Program | None = None
        self.inference: Program | None = None
        self._device = device
        self._spec = spec
        self.seed = spec.seed
        self._memory = memory
        self._plan = plan
        self._selections = {
            i.name: selection(i.shape, i.batch_axis, rows) for i in spec.inputs
        }
        self.states = StateInputs(spec.states, rows, memory.states[index])
        self._takes_all = not spec.states and not any(self._selections.values())
        self._last: tuple[Program, int] | None = None
        self._fed: tuple[Program, int] | None = (
            None  # of a forward done again, lost too
        )
        self._key = FIRST_STEP
        self._slot = 0
        self._adding: Section | None = None  # what has begun to add to gradients
        self._has_auxiliaries = plan is not None and "commit" in plan.sections
        self._fusing: Fusing | None = None
        self._fused: dict[Program, Fused] = {}
        self._written = [n for n, wish in spec.gradients.items() if wish == "write"]

    @property
    def storage(self) -> Program:
        """The program that holds what outlives this binding."""
        return self._memory.storage[self.index]

    @property
    def nbytes(self) -> int:
        """Bytes of the programs' own segments, without those that groups share."""
        both = (self.training, self._spec.in_flight), (self.inference, INFERENCE_SLOTS)
        made = [(program, slots) for program, slots in both if program is not None]
        return own_nbytes(made, self.storage)

    def compile(self) -> None:
        """Make the program that the group was made for."""
        if self._plan is None:
            return
        if not self._spec.for_training:
            self.inference = self._compile(self._plan, INFERENCE_SLOTS)
            return
        self.training = self._compile(self._plan, self._spec.in_flight)
        self._fusing = fusing(self.training)
        if "input_gradient" in self._plan.segments:
            self.training.fill("input_gradient")

    def inference_program(self) -> Program:
        """The inference program, made by the first call."""
        if self.inference is None:
            self._memory.check_lost()  # nothing is to be started on such a device
            plan = compile_plan(self._request(is_train=False))
            self.inference = self._compile(plan, INFERENCE_SLOTS)
        return self.inference

    # Running ------------------------------------------------------------------------

    def forward(self, inputs: Mapping[str, Array]) -> None:
        """A training forward."""
        key = self._begin_forward()
        program = self.training
        if program is None:
            return
        self._write(program, inputs, self._slot)
        program.launch("forward", self._slot, key)
        program.wait()
        self._last = program, self._slot

    def infer(self, inputs: Mapping[str, Array]) -> None:
        """An inference forward, whose outputs stay readable."""
        self._last = None
        self._key = self._prediction_key()
        if self.is_idle:
            return
        program = self.inference_program()
        self._write(program, inputs, FORWARD_SLOT)
        program.launch("predict", FORWARD_SLOT, self._key)
        program.wait()
        self._last = program, FORWARD_SLOT

    @property
    def key(self) -> StepKey:
        """What made the random numbers of the last forward."""
        return self._key

    def last_inputs(self, names: Sequence[str]) -> dict[str, Array]:
        """This device's part of the inputs of the last forward; {} if it had none."""
        place = self._last or self._fed
        if place is None:
            return {}
        program, slot = place
        return {name: program.read("input", name, slot) for name in names}

    def forward_again(
        self, inputs: Mapping[str, Array], key: StepKey, is_train: bool
    ) -> None:
        """A forward that other devices have done, with its random numbers."""
        self._last = None
        self._key = StepKey(key.seed, key.step, self.rows.start)
        if self.is_idle:
            return
        program, slot = self.training, self._slot
        if not is_train:
            program, slot = self.inference_program(), FORWARD_SLOT
        assert program is not None
        for name, array in inputs.items():
            selection = self._selections[name]
            part = array if selection is None else array[selection]
            program.write("input", name, part, slot)
        self._fed = program, slot
        program.launch("forward" if is_train else "predict", slot, self._key)
        program.wait()
        self._last = program, slot

    def backward(self, heads: Mapping[str, Array]) -> None:
        """A backward after a training forward; `heads` are this device's parts."""
        program = self.training
        self._adding = None
        if program is None:
            self._zero_stale_gradients()
            return
        if self._last is None or self._last[0] is not program:
            raise GradientError("backward needs a training forward before it")
        self._memory.gradients_zero[self.index] = False
        for name, head in heads.items():
            program.write("head", name, head)
        self._adding = "backward"
        program.launch("backward", self._slot)
        program.wait()

    def commit(self) -> None:
        """Make the last training forward's auxiliary states the current ones."""
        if self.training is not None and self._has_auxiliaries:
            self.training.launch("commit", self._slot)
            self.training.wait()

    def take_back(self) -> bool:
        """Take back the last `commit`; False if the device cannot do that."""
        if self.training is None or not self._has_auxiliaries:
            return True
        return self.training.undo("commit")

    def take_back_sums(self, section: Section) -> bool:
        """Take back what the last "backward" or "step" has added to gradients.

        False if the device cannot do that.
        """
        program, began = self.training, self._adding
        self._adding = None
        if program is None or began != section or not program.plan.accumulated:
            return True
        return program.undo(section)

    def compute(
        self,
        inputs: Mapping[str, Array],
        copied: Callable[[int], None] | None = None,
        *,
        next_slot: bool = False,
    ) -> None:
        """Forward and backward of a step.

        Args:
            inputs: The whole batch.
            copied: Told this device's index when it reads the inputs no more.
            next_slot: Use other input and output buffers than the last forward.
        """
        self._adding = None
        key = self._begin_step(next_slot)
        program, slot = self.training, self._slot
        if program is None:
            return
        self._write(program, inputs, slot)
        if copied is not None:
            copied(self.index)
        self._adding = "step"
        program.launch("step", slot, key)
        program.wait()
        self._last = program, slot

    def can_fuse(self, update: Program | None, parties: int) -> bool:
        """Whether `compute_and_update` works with this update on so many devices."""
        if self._fusing is None or update is None:
            return False
        return self._fusing.can_fuse(update, parties)

    def compute_and_update(
        self,
        inputs: Mapping[str, Array],
        update: Program,
        meeting: Meeting,
        copied: Callable[[int], None] | None = None,
        *,
        next_slot: bool = False,
    ) -> Phases:
        """Forward, backward, commit and update of a step in one launch.

        Only for programs that can be fused; as `compute` otherwise. If it raises, this
        device has not come to the meeting.
        """
        key = self._begin_step(next_slot)
        program, slot = self.training, self._slot
        assert program is not None
        fused = self._fused.get(update)
        if fused is None:
            assert self._fusing is not None
            fused = self._fused[update] = self._fusing.fuse(update)
        parts = inputs if self._takes_all else self._parts(inputs)
        if copied is not None:
            # The caller waits to have its arrays back: sooner than at the step's end.
            for name, array in parts.items():
                program.write("input", name, array, slot)
            parts = {}
            copied(self.index)
        phases = fused.launch(parts, slot, key, meeting)
        self._last = program, slot
        return phases

    def begin_joined(self, inputs: Mapping[str, Array]) -> StepKey:
        """Begin a step that is run together with other devices', in the first slot."""
        key = self._begin_step(next_slot=False)
        self._slot = 0
        assert self.training is not None
        self._write(self.training, inputs, 0)
        return key

    def end_joined(self) -> None:
        """That step has been run, and its update."""
        assert self.training is not None
        self._last = self.training, 0

    def predict(
        self,
        inputs: Mapping[str, Array],
        merge: Merge,
        merged: list[Array],
        copied: Callable[[int], None] | None = None,
    ) -> None:
        """Inference in buffers of its own, and its outputs into the merged ones."""
        key = self._prediction_key()
        if self.is_idle:
            return
        program = self.inference_program()
        self._write(program, inputs, PREDICT_SLOT)
        if copied is not None:
            copied(self.index)
        program.launch("predict", PREDICT_SLOT, key)

        def read(name: str, out: Array | None) -> Array:
            return program.read("output", name, PREDICT_SLOT, out=out)

        merge.fill(self.index, merged, read)

    def observe(
        self,
        observe: Observe,
        *,
        forward: bool = False,
        heads: Mapping[str, Array] | None = None,
    ) -> None:
        """Show what is inside the last forward, before anything is updated.

        Args:
            observe: Called with every value.
            forward: Whether to show the arguments and the forward.
            heads: Head gradients of the backward to show; None shows none.
        """
        if self._last is None:  # idle
            return
        program, slot = self._last
        is_train = program is self.training
        names = [i.name for i in self._spec.inputs]
        values = {name: program.read("input", name, slot) for name in names}
        for name in self._spec.csr:
            matrix: Any = values[name]
            values[name] = matrix.toarray()
        for segment in ("parameter", "auxiliary"):
            for name in program.plan.tensors[segment]:
                values[name] = self.storage.read(segment, name)
        unfused = UnfusedPass(
            self._request(is_train),
            values,
            self._key,
            self.index,
            observe if forward else ignore,
        )
        unfused.arguments()
        unfused.forward()
        if heads is not None:
            unfused.backward(heads, observe)

    # Reading and writing ------------------------------------------------------------

    def output(self, name: str, out: Array | None = None) -> Array:
        """This device's part of an output of the last forward; copied, to `out`."""
        if self._last is None:
            raise no_outputs()
        program, slot = self._last
        return program.read("output", name, slot, out=out)

    def input_gradient(self, name: str, out: Array | None = None) -> Array:
        """This device's part of the gradient of an input; copied, to `out`."""
        assert self.training is not None
        return self.training.read("input_gradient", name, out=out)

    def write_input_gradient(self, name: str, value: Array) -> None:
        """Set this device's part of the gradient of an input."""
        assert self.training is not None
        self.training.write("input_gradient", name, value)

    def gradient(self, name: str) -> Gradient:
        """This device's gradient of a parameter, not summed with others'."""
        if name in self._memory.gradient_rows.tensors:
            return read_gradient(self.storage, name)
        return self.storage.read("gradient", name)

    def zero_gradients(self) -> None:
        """Set the gradients of parameters and inputs to zero."""
        if "gradient" in self.storage.segments:
            self.storage.fill("gradient")
            for name in self._memory.rows_of(self.index).tensors:
                clear_gradient(self.storage, name)
        if self.training is not None:
            if "input_gradient" in self.training.segments:
                self.training.fill("input_gradient")

    def forget(self, updates: Sequence[Program | None]) -> None:
        """Free update programs, and what was fused with them."""
        for update in updates:
            if update is not None:
                self._fused.pop(update, None)
        free(updates)

    def close(self) -> None:
        """Free the programs; idempotent. The storage stays."""
        self._last = None
        self._fused = {}
        for program in (self.training, self.inference):
            if program is not None:
                program.close()

    def _compile(self, plan: Plan, slots: int) -> Program:
        shared = dict(self.storage.segments)
        return self._device.compile(plan, shared, slots)

    def _request(self, is_train: bool) -> Request:
        return plan_request(
            self._spec,
            self.rows,
            self._device.native,
            is_train=is_train,
            parameters=self._memory.parameters,
            auxiliaries=self._memory.auxiliaries,
            gradient_rows=self._memory.gradient_rows,
        )

    def _begin_forward(self) -> StepKey:
        self._last = None
        step = self._memory.count_forward(self.index)
        self._key = StepKey(self.seed, step, self.rows.start)
        return self._key

    def _prediction_key(self) -> StepKey:
        count = self._memory.count_prediction(self.index)
        return StepKey(self.seed, FIRST_PREDICTION + count, self.rows.start)

    def _begin_step(self, next_slot: bool) -> StepKey:
        key = self._begin_forward()
        if self.training is None:
            self._zero_stale_gradients()
        else:
            self._memory.gradients_zero[self.index] = False
            if next_slot:
                self._slot = (self._slot + 1) % self._spec.in_flight
        return key

    def _write(self, program: Program, inputs: Mapping[str, Array], slot: int) -> None:
        parts = inputs if self._takes_all else self._parts(inputs)
        for name, array in parts.items():
            program.write("input", name, array, slot)

    def _parts(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """What this device takes of the inputs, and its states."""
        selections = self._selections
        parts = {
            name: array if (selection := selections[name]) is None else array[selection]
            for name, array in inputs.items()
        }
        return parts | self.states.read_all()

    def _zero_stale_gradients(self) -> None:
        """An idle device's gradients count as zero, unless they accumulate."""
        memory = self._memory
        if memory.gradients_zero[self.index]:
            return
        for name in self._written:
            tensor = memory.parameters.tensors.get(name)
            if tensor is None or not memory.placement.holds(self.index, name):
                continue
            if name in memory.gradient_rows.tensors:
                clear_gradient(self.storage, name)
            else:
                zeros = np.zeros(tensor.shape, tensor.dtype)
                self.storage.write("gradient", name, zeros)
        memory.gradients_zero[self.index] = True


def selection(shape: Shape, axis: int, rows: slice) -> Selection:
    """What a device takes of an input; None if it takes all of it."""
    if sliced_shape(shape, axis, rows) == shape:
        return None
    return select(axis, rows)


def no_outputs() -> DeviceError:
    """What is raised where outputs are asked for too early."""
    return DeviceError(
        "there are no outputs: no forward has succeeded since the bind or since a "
        "forward that failed"
    )
