"""A member's work where a graph is cut into stages: its stages, run in turn.

Every member runs its stages in the order of the graph, forward and then backward, and
waits at each for what other members send it (`runtime.executor.stage_work`). All
members take part in every pass, whatever fails.

Next: `runtime.executor.collective`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtime.devices.contract import (
    FIRST_PREDICTION,
    FIRST_STEP,
    Device,
    Program,
    StepKey,
)
from runtime.errors import GradientError
from runtime.executor.memory import Memory, free
from runtime.executor.merging import Merge, placed
from runtime.executor.observation import Observe, UnfusedPass, ignore
from runtime.executor.placement import Staging
from runtime.executor.replica import Replica, no_outputs, selection
from runtime.executor.row_sparse import Gradient, clear_gradient, read_gradient
from runtime.executor.slots import FORWARD_SLOT, PREDICT_SLOT, own_nbytes
from runtime.executor.specification import GroupSpec, InputSpec, plan_request
from runtime.executor.split import sliced_shape
from runtime.executor.stage_work import LOST, StageWork
from runtime.executor.state_inputs import StateInputs
from runtime.graph.face import output_names
from runtime.graph.plan import Section

Array = NDArray[Any]


class StagedReplica:
    """See the module; its methods are those of `Replica`.

    Attributes:
        index: Position of the member in the group.
        rows: Rows of the batch of its share.
        seed: Seed of the random operators.
        states: The share's state inputs; the leader's alone.
        training, inference: None: a pass never runs on the Trio thread.
        is_idle: Whether it brings nothing to what the shares hand out: it leads none.
    """

    training: Program | None = None
    inference: Program | None = None

    def __init__(
        self,
        index: int,
        rows: slice,
        device: Device,
        spec: GroupSpec,
        memory: Memory,
        staging: Staging,
    ) -> None:
        member = memory.placement.members[index]
        self.index = index
        self.rows = rows
        self.is_idle = not member.leads
        self._share = member.share
        self._spec = spec
        self.seed = spec.seed
        self._memory = memory
        self._wiring = staging.wiring
        self._work = [
            StageWork(stage, links, staging, spec, memory, device, index)
            for stage, links in zip(staging.stages, staging.wiring.stages, strict=True)
            if stage.place == member.device
        ]
        self._selections = {
            i.name: selection(i.shape, i.batch_axis, rows) for i in spec.inputs
        }
        self._slot = 0
        self._key = FIRST_STEP
        self._passes = 0  # the same number for all members
        self._trained = False  # whether the last forward was one for training
        # What only the leader has:
        self._given: dict[str, Array] = {}
        self._outputs: dict[str, Array] | None = None
        kept = () if self.is_idle else spec.states
        self.states = StateInputs(kept, rows, memory.states[index])
        wanted = [i for i in spec.inputs if i.name in staging.wiring.input_gradients]
        self._input_gradients = self._zeros(() if self.is_idle else wanted)

    @property
    def storage(self) -> Program:
        """The program that holds what outlives this binding."""
        return self._memory.storage[self.index]

    @property
    def nbytes(self) -> int:
        """Bytes of the programs' own segments, without those that groups share."""
        made = [entry for work in self._work for entry in work.programs]
        return own_nbytes(made, self.storage)

    def compile(self) -> None:
        """Make the programs that the group was made for."""
        for work in self._work:
            work.compile(self._spec.for_training)

    # Running ------------------------------------------------------------------------

    def forward(self, inputs: Mapping[str, Array]) -> None:
        """A training forward."""
        self._begin(inputs, training=True)
        self._end(self._forward("forward", inputs, self._slot, self._key))

    def infer(self, inputs: Mapping[str, Array]) -> None:
        """An inference forward, whose outputs stay readable."""
        self._begin(inputs, training=False)
        for work in self._work:
            work.ready = False
        self._end(self._forward("predict", inputs, FORWARD_SLOT, self._key))

    def backward(self, heads: Mapping[str, Array]) -> None:
        """A backward after a training forward; `heads` are given to the leader."""
        self._passes += 1
        for work in self._work:
            work.adding = False
        failure: BaseException | None = None
        if not all(work.ready for work in self._work):
            failure = GradientError("backward needs a training forward before it")
        self._end(self._backward(heads, failure))

    def commit(self) -> None:
        """Make the last training forward's auxiliary states the current ones."""
        for work in self._work:
            work.commit(self._slot)

    def take_back(self) -> bool:
        """Take back the last `commit`; False if the device cannot do that."""
        undone = [work.take_back() for work in self._work]
        return all(undone)

    def take_back_sums(self, section: Section) -> bool:
        """Take back what the last pass has added to gradients of parameters.

        False if the device cannot do that.
        """
        undone = [work.take_back_sums() for work in self._work]
        return all(undone)

    def compute(
        self,
        inputs: Mapping[str, Array],
        copied: Callable[[int], None] | None = None,
        *,
        next_slot: bool = False,
    ) -> None:
        """Forward and backward of a step; see `Replica.compute`."""
        self._begin(inputs, training=True)
        if next_slot:
            self._slot = (self._slot + 1) % self._spec.in_flight
        failure = self._forward("forward", inputs, self._slot, self._key, copied)
        self._end(self._backward({}, failure))

    def predict(
        self,
        inputs: Mapping[str, Array],
        merge: Merge,
        merged: list[Array],
        copied: Callable[[int], None] | None = None,
    ) -> None:
        """Inference in buffers of its own, and its outputs into the merged ones."""
        kept = self._outputs
        key = self._prediction_key()
        try:
            failure = self._forward("predict", inputs, PREDICT_SLOT, key, copied)
            if failure is not None:
                raise failure
            outputs = self._outputs
            if outputs is not None:
                merge.fill(
                    self.index, merged, lambda name, out: placed(outputs[name], out)
                )
        finally:
            self._outputs = kept

    def observe(
        self,
        observe: Observe,
        *,
        forward: bool = False,
        heads: Mapping[str, Array] | None = None,
    ) -> None:
        """Show what is inside the last forward: the leader does, of the whole share."""
        held = self._held()
        if self.is_idle:
            self._wiring.shown[self.index].put((self._passes, held))
            return
        values = self._zeros(self._spec.inputs)
        for name, array in self._given.items():
            part: Any = self._part_of(name, array)
            values[name] = part.toarray() if name in self._spec.csr else part
        values |= self.states.read_all() | held
        for channel in self._wiring.shown.values():
            number, shown = channel.get()
            while number != self._passes:  # of a pass that was not to be shown
                number, shown = channel.get()
            if shown is LOST:
                return
            values |= shown
        request = plan_request(
            self._spec,
            self.rows,
            None,
            is_train=self._trained,
            parameters=self._memory.parameters,
            auxiliaries=self._memory.auxiliaries,
            gradient_rows=self._memory.gradient_rows,
        )
        shows = observe if forward else ignore
        unfused = UnfusedPass(request, values, self._key, self._share, shows)
        unfused.arguments()
        unfused.forward()
        if heads is not None:
            unfused.backward(heads, observe)

    # Reading and writing ------------------------------------------------------------

    def output(self, name: str, out: Array | None = None) -> Array:
        """This share's part of an output of the last forward; the leader's."""
        if self._outputs is None:
            raise no_outputs()
        output = self._outputs[name]
        return output.copy() if out is None else placed(output, out)

    def input_gradient(self, name: str, out: Array | None = None) -> Array:
        """The share's part of the gradient of an input; the leader's."""
        gradient = self._input_gradients[name]
        return gradient.copy() if out is None else placed(gradient, out)

    def write_input_gradient(self, name: str, value: Array) -> None:
        """Set the share's part of the gradient of an input; the leader's."""
        self._input_gradients[name][...] = value

    def gradient(self, name: str) -> Gradient:
        """The share's gradient of a parameter that is kept here."""
        if name in self._memory.gradient_rows.tensors:
            return read_gradient(self.storage, name)
        return self.storage.read("gradient", name)

    def zero_gradients(self) -> None:
        """Set the gradients of parameters and inputs to zero."""
        if "gradient" in self.storage.segments:
            self.storage.fill("gradient")
            for name in self._memory.rows_of(self.index).tensors:
                clear_gradient(self.storage, name)
        for array in self._input_gradients.values():
            array.fill(0)

    def forget(self, updates: Sequence[Program | None]) -> None:
        """Free update programs."""
        free(updates)

    def close(self) -> None:
        """Free the programs; idempotent. The storage stays."""
        self._outputs = None
        for work in self._work:
            work.close()

    # Inside -------------------------------------------------------------------------

    def _begin(self, inputs: Mapping[str, Array], training: bool) -> None:
        """Count a forward, and note what it is to run on."""
        self._passes += 1
        self._trained = training
        for work in self._work:
            work.adding = False
        if not self.is_idle:
            self._given |= inputs
        if training:
            step = self._memory.count_forward(self.index)
            self._key = StepKey(self.seed, step, self.rows.start)
        else:
            self._key = self._prediction_key()

    def _prediction_key(self) -> StepKey:
        count = self._memory.count_prediction(self.index)
        return StepKey(self.seed, FIRST_PREDICTION + count, self.rows.start)

    def _end(self, failure: BaseException | None) -> None:
        if failure is not None:
            if self.is_idle:
                self._wiring.shown[self.index].put((self._passes, LOST))
            raise failure

    def _forward(
        self,
        section: Section,
        inputs: Mapping[str, Array],
        slot: int,
        key: StepKey,
        copied: Callable[[int], None] | None = None,
    ) -> BaseException | None:
        """One pass through the stages; what went wrong in one of this member's."""
        failure: BaseException | None = None
        self._outputs = None
        states: Mapping[str, Array] = {}
        try:
            states = self.states.read_all()
            parts = {name: self._part_of(name, a) for name, a in inputs.items()}
            for work in self._work:
                work.write(parts, section == "forward", slot)
        except BaseException as error:
            failure = error
        if copied is not None:
            copied(self.index)
        if not self.is_idle:
            for name, channels in self._wiring.states.items():
                for channel in channels:
                    # A copy: other members read it while this one may go on.
                    channel.put(states[name].copy() if name in states else LOST)
        for work in self._work:
            failed = work.forward(section, slot, key, failure is not None)
            failure = failure or failed
        if not self.is_idle:
            outputs = [channel.get() for channel in self._wiring.outputs]
            if not any(output is LOST for output in outputs):
                names = output_names(self._spec.graph)
                self._outputs = dict(zip(names, outputs, strict=True))
        return failure

    def _backward(
        self, heads: Mapping[str, Array], failure: BaseException | None
    ) -> BaseException | None:
        """One pass back through the stages that have run forward."""
        wiring = self._wiring
        self._memory.gradients_zero[self.index] = False
        if not self.is_idle:
            for name, channel in wiring.heads.items():
                channel.put(heads[name])
            for name, channel in wiring.accumulated.items():
                channel.put(self._input_gradients[name])
        for work in reversed(self._work):
            failed = work.backward(self._slot, failure is not None)
            failure = failure or failed
        if not self.is_idle:
            for name, channel in wiring.input_gradients.items():
                gradient = channel.get()
                if gradient is not LOST:
                    self._input_gradients[name] = gradient
        self._meet_at_gradients()
        return failure

    def _meet_at_gradients(self) -> None:
        """Let the member whose memory holds the gradients wait for the others."""
        source, finished = self._memory.placement.source, self._wiring.finished
        if self.index in finished:
            finished[self.index].put(None)
        for member, channel in finished.items():
            if source(member) == self.index:
                channel.get()

    def _held(self) -> dict[str, Array]:
        """Copies of the parameters and auxiliary states that this member keeps."""
        memory, index = self._memory, self.index
        layouts = zip(("parameter", "auxiliary"), memory.layouts(index), strict=True)
        return {
            name: self.storage.read(segment, name)
            for segment, layout in layouts
            for name in layout.tensors
            if memory.placement.holds(index, name)
        }

    def _part_of(self, name: str, array: Array) -> Array:
        """This share's rows of an input."""
        chosen = self._selections[name]
        return array if chosen is None else array[chosen]

    def _zeros(self, inputs: Iterable[InputSpec]) -> dict[str, Array]:
        return {
            i.name: np.zeros(sliced_shape(i.shape, i.batch_axis, self.rows), i.dtype)
            for i in inputs
        }


AnyReplica = Replica | StagedReplica
