"""A member's work where a graph is cut into stages: its programs, run in turn.

Every member runs its stages in the order of the graph, forward and then backward, and
waits at each for what other members send it (`runtime.executor.wiring`). All members
take part in every pass, whatever fails: each channel carries one thing per pass, and
what could not be computed is sent as LOST. So nobody waits for ever, and channels are
empty between passes.

Next: `runtime.executor.collective`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from runtime.devices.contract import FIRST_STEP, Device, Program, StepKey
from runtime.errors import DeviceError, GradientError
from runtime.executor.memory import Memory, free
from runtime.executor.merging import Merge
from runtime.executor.observation import Observe, UnfusedPass, ignore
from runtime.executor.placement import Staging
from runtime.executor.replica import Replica, selection
from runtime.executor.specification import GroupSpec, plan_request
from runtime.executor.split import sliced_shape
from runtime.executor.wiring import Link, StageLinks
from runtime.graph.compile import compile_plan
from runtime.graph.face import output_names
from runtime.graph.ir import Shape
from runtime.graph.passes.stages import Stage
from runtime.graph.plan import Section
from runtime.graph.request import Request

Array = NDArray[Any]

LOST: Final = object()
"""Sent in place of a tensor that could not be computed."""

_FORWARD_SLOT, _PREDICT_SLOT, _INFERENCE_SLOTS = 0, 1, 2


@dataclass
class _Part:
    """One stage of a member, with its programs."""

    stage: Stage
    links: StageLinks
    training: Program | None = None
    inference: Program | None = None
    ready: bool = False  # for backward

    @property
    def programs(self) -> list[Program]:
        return [p for p in (self.training, self.inference) if p is not None]


class StagedReplica:
    """See the module; its methods are those of `Replica`.

    Attributes:
        index: Position of the member in the group.
        rows: Rows of the batch of its share.
        seed: Seed of the random operators.
        training, inference: None: a pass never runs on the Trio thread.
        is_idle: Whether it brings nothing to what the shares hand out.
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
        self._device = device
        self._spec = spec
        self.seed = spec.seed
        self._memory = memory
        self._staging = staging
        self._wiring = staging.wiring
        self._parts = [
            _Part(stage, links)
            for stage, links in zip(staging.stages, staging.wiring.stages, strict=True)
            if stage.place == member.device
        ]
        self._selections = {
            i.name: selection(i.shape, i.batch_axis, rows) for i in spec.inputs
        }
        self._slot = 0
        self._key = FIRST_STEP
        # What only the leader has:
        self._given: dict[str, Array] = {}
        self._trained = False  # whether the last forward was one for training
        self._outputs: dict[str, Array] | None = None
        self._states = self._zeros(() if self.is_idle else spec.states)
        wanted = [i for i in spec.inputs if i.name in staging.wiring.input_gradients]
        self._input_gradients = self._zeros(() if self.is_idle else wanted)

    @property
    def storage(self) -> Program:
        return self._memory.storage[self.index]

    @property
    def nbytes(self) -> int:
        """Bytes of the programs' own segments, without those that groups share."""
        shared = self.storage.segments
        return sum(
            nbytes * (slots if name in program.plan.slotted else 1)
            for part in self._parts
            for program, slots in (
                (part.training, self._spec.in_flight),
                (part.inference, _INFERENCE_SLOTS),
            )
            if program is not None
            for name, nbytes in program.plan.segments.items()
            if name not in shared
        )

    def compile(self) -> None:
        """Make the programs that the group was made for."""
        for part in self._parts:
            if self._spec.for_training:
                part.training = self._compile(part, True)
            else:
                part.inference = self._compile(part, False)

    # Running ------------------------------------------------------------------------

    def forward(self, inputs: Mapping[str, Array]) -> None:
        """A training forward."""
        self._begin(inputs, training=True)
        _raise(self._forward("forward", inputs, self._slot, self._key))

    def infer(self, inputs: Mapping[str, Array]) -> None:
        """An inference forward, whose outputs stay readable."""
        self._begin(inputs, training=False)
        for part in self._parts:
            part.ready = False
        _raise(self._forward("predict", inputs, _FORWARD_SLOT))

    def backward(self, heads: Mapping[str, Array]) -> None:
        """A backward after a training forward; `heads` are given to the leader."""
        failure: BaseException | None = None
        if not all(part.ready for part in self._parts):
            failure = GradientError("backward needs a training forward before it")
        _raise(self._backward(heads, failure))

    def commit(self) -> None:
        """Make the last training forward's auxiliary states the current ones."""
        for part in self._parts:
            if part.training is not None and "commit" in part.training.plan.sections:
                part.training.launch("commit", self._slot)
                part.training.wait()

    def take_back(self) -> bool:
        """Take back the last `commit`; False if the device cannot do that."""
        programs = [part.training for part in self._parts]
        undone = [
            program.undo("commit")
            for program in programs
            if program is not None and "commit" in program.plan.sections
        ]
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
        _raise(self._backward({}, failure))

    def predict(
        self,
        inputs: Mapping[str, Array],
        merge: Merge,
        merged: list[Array],
        copied: Callable[[int], None] | None = None,
    ) -> None:
        """Inference in buffers of its own, and its outputs into the merged ones."""
        kept = self._outputs
        try:
            _raise(self._forward("predict", inputs, _PREDICT_SLOT, copied=copied))
            if self._outputs is not None:
                merge.fill(self.index, merged, self._outputs.__getitem__)
        finally:
            self._outputs = kept

    def observe(
        self,
        observe: Observe,
        *,
        forward: bool = False,
        heads: Mapping[str, Array] | None = None,
    ) -> None:
        """Show what is inside the last forward; the leader, of its whole share."""
        if self._outputs is None:
            return
        spec, memory = self._spec, self._memory
        request = plan_request(
            spec,
            self.rows,
            None,
            is_train=self._trained,
            parameters=memory.parameters,
            auxiliaries=memory.auxiliaries,
            gradient_rows=memory.gradient_rows,
        )
        values = self._zeros(spec.inputs)
        for name, array in self._given.items():
            values[name] = self._part_of(name, array)
        values |= self._states
        share = memory.placement.members[self.index].share
        for segment, layout in (
            ("parameter", memory.parameters),
            ("auxiliary", memory.auxiliaries),
        ):
            for name in layout.tensors:
                home = memory.placement.holder(name, share)
                values[name] = memory.storage[home].read(segment, name)
        unfused = UnfusedPass(
            request,
            values,
            self._key if self._trained else FIRST_STEP,
            share,
            observe if forward else ignore,
        )
        unfused.arguments()
        unfused.forward()
        if heads is not None:
            unfused.backward(heads, observe)

    # Reading and writing ------------------------------------------------------------

    def output(self, name: str) -> Array:
        """This share's part of an output of the last forward; the leader's."""
        if self._outputs is None:
            raise DeviceError(
                "there are no outputs: no forward has succeeded since the bind or "
                "since a forward that failed"
            )
        return self._outputs[name].copy()

    def input_gradient(self, name: str) -> Array:
        return self._input_gradients[name].copy()

    def gradient(self, name: str) -> Array:
        return self.storage.read("gradient", name)

    def zero_gradients(self) -> None:
        """Set the gradients of parameters and inputs to zero."""
        if "gradient" in self.storage.segments:
            self.storage.fill("gradient")
        for array in self._input_gradients.values():
            array.fill(0)

    @property
    def state_shapes(self) -> dict[str, Shape]:
        return {name: array.shape for name, array in self._states.items()}

    def set_states(self, states: Mapping[str, Array]) -> None:
        """Keep copies of state inputs, for every forward from now on."""
        for name, value in states.items():
            self._states[name] = value.astype(self._states[name].dtype)

    def fill_states(self, value: float | None) -> None:
        """Set every element of every state input."""
        for name, array in self._states.items():
            self._states[name] = np.full_like(array, value)

    def state(self, name: str) -> Array:
        return self._states[name].copy()

    def forget(self, updates: Sequence[Program | None]) -> None:
        """Free update programs."""
        free(updates)

    def close(self) -> None:
        self._outputs = None
        for part in self._parts:
            for program in part.programs:
                program.close()

    # Inside -------------------------------------------------------------------------

    def _forward(
        self,
        section: Section,
        inputs: Mapping[str, Array],
        slot: int,
        key: StepKey = FIRST_STEP,
        copied: Callable[[int], None] | None = None,
    ) -> BaseException | None:
        """One pass through the stages; what went wrong in one of this member's."""
        training = section == "forward"
        failure: BaseException | None = None
        self._outputs = None
        programs: list[Program] = []
        try:
            for part in self._parts:
                programs.append(self._program(part, training))
                self._write(part, programs[-1], inputs, slot)
        except BaseException as caught:
            failure = caught
        if copied is not None:
            copied(self.index)
        if not self.is_idle:
            for name, channels in self._wiring.states.items():
                for channel in channels:
                    # A copy: other members read it while this one may go on.
                    channel.put(self._states[name].copy())
        for k, part in enumerate(self._parts):

            def run(k: int = k) -> None:
                programs[k].launch(section, slot, key)
                programs[k].wait()

            program = programs[k] if k < len(programs) else None
            lost = failure is not None
            done, error = _pass(part.links.forward, program, slot, run, lost)
            failure = failure or error
            if training:
                part.ready = done
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
                if name not in heads:
                    failure = failure or GradientError(
                        f"output `{name}` is no loss, so backward needs its gradient: "
                        "end the graph in a loss such as MakeLoss"
                    )
                channel.put(heads.get(name, LOST))
            for name, channel in wiring.accumulated.items():
                channel.put(self._input_gradients[name])
        for part in reversed(self._parts):

            def run(part: _Part = part) -> None:
                assert part.training is not None
                part.training.launch("backward", self._slot)
                part.training.wait()

            lost = failure is not None or not part.ready
            _, error = _pass(part.links.backward, part.training, 0, run, lost)
            failure = failure or error
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

    def _begin(self, inputs: Mapping[str, Array], training: bool) -> None:
        """Count a forward, and note what it is to run on."""
        self._given |= inputs
        self._trained = training
        if training:
            forwards = self._memory.forwards
            step = forwards[self.index]
            forwards[self.index] = step + 1
            self._key = StepKey(self.seed, step, self.rows.start)

    def _write(
        self, part: _Part, program: Program, inputs: Mapping[str, Array], slot: int
    ) -> None:
        here = program.plan.tensors["input"]
        for name, array in inputs.items():
            if name in here:
                program.write("input", name, self._part_of(name, array), slot)

    def _part_of(self, name: str, array: Array) -> Array:
        """This share's rows of an input."""
        chosen = self._selections[name]
        return array if chosen is None else array[chosen]

    def _program(self, part: _Part, training: bool) -> Program:
        if training:
            assert part.training is not None
            return part.training
        if part.inference is None:
            part.inference = self._compile(part, False)
        return part.inference

    def _compile(self, part: _Part, training: bool) -> Program:
        stage, spec, memory = part.stage, self._spec, self._memory
        variables = {node.name for node in stage.graph.arguments}
        fed = [i.name for i in spec.inputs if i.name in variables]
        parameters, auxiliaries = memory.layouts(self.index)
        plan = compile_plan(
            Request(
                stage.graph,
                (*fed, *stage.received.values()),
                {},
                gradients=part.links.requests if training else {},
                is_train=training,
                parameters=parameters,
                auxiliaries=auxiliaries,
                native=self._device.native,
                guards=spec.guards,
                gradient_rows=memory.gradient_rows,
                inference=stage.infer(self._staging.inference),
                positions=self._staging.positions,
            )
        )
        slots = spec.in_flight if training else _INFERENCE_SLOTS
        program = self._device.compile(plan, dict(self.storage.segments), slots)
        if training and "input_gradient" in plan.segments:
            program.fill("input_gradient")
        return program

    def _zeros(self, inputs: Iterable[Any]) -> dict[str, Array]:
        return {
            i.name: np.zeros(sliced_shape(i.shape, i.batch_axis, self.rows), i.dtype)
            for i in inputs
        }


AnyReplica = Replica | StagedReplica


def _pass(
    links: Sequence[Link],
    program: Program | None,
    slot: int,
    run: Callable[[], None],
    lost: bool,
) -> tuple[bool, BaseException | None]:
    """Take what arrives, run, send what leaves; or let everything be LOST.

    Returns:
        Whether it ran, and what went wrong here.
    """
    arrived = [(link, link.arrives.get()) for link in links if link.arrives is not None]
    lost = lost or any(value is LOST for _, value in arrived)
    error: BaseException | None = None
    sent: list[tuple[SimpleQueue[Any], Any]] = []
    if not lost and program is not None:
        try:
            for link, value in arrived:
                if link.segment:
                    program.write(link.segment, link.name, value, _slot(link, slot))
            run()
            for link in links:
                value = None
                if link.segment and link.leaves:
                    value = program.read(link.segment, link.name, _slot(link, slot))
                sent += [(channel, value) for channel in link.leaves]
        except BaseException as caught:
            error = caught
    if lost or error is not None or program is None:
        sent = [(channel, LOST) for link in links for channel in link.leaves]
    for channel, value in sent:
        channel.put(value)
    return not lost and error is None, error


def _slot(link: Link, slot: int) -> int:
    return slot if link.segment in ("input", "output") else 0


def _raise(failure: BaseException | None) -> None:
    if failure is not None:
        raise failure
