"""One stage at work: take what arrives, run, send what leaves.

Each channel carries one thing per pass, whatever fails: what could not be computed is
sent as LOST. So nobody waits forever, and channels are empty between passes.

Next: `runtime.executor.staged`, which runs the stages of one member in turn.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from numpy.typing import NDArray

from runtime.devices.contract import Device, Program, StepKey
from runtime.executor.memory import Memory
from runtime.executor.placement import Staging
from runtime.executor.slots import INFERENCE_SLOTS
from runtime.executor.specification import GroupSpec
from runtime.executor.wiring import Channel, Link, StageLinks
from runtime.graph.compile import compile_plan
from runtime.graph.passes.stages import Stage
from runtime.graph.plan import Plan, Section
from runtime.graph.request import Request

Array = NDArray[Any]

LOST: Final = object()
"""Sent in place of a tensor that could not be computed."""


class StageWork:
    """The programs of one stage of a member; on the member's thread.

    Attributes:
        training, inference: The programs; None until compiled.
        ready: Whether the last training forward succeeded, for the backward.
        adding: Whether this pass has begun to add to gradients.
    """

    def __init__(
        self,
        stage: Stage,
        links: StageLinks,
        staging: Staging,
        spec: GroupSpec,
        memory: Memory,
        device: Device,
        member: int,
    ) -> None:
        self.training: Program | None = None
        self.inference: Program | None = None
        self.ready = False
        self.adding = False
        self._stage = stage
        self._links = links
        self._staging = staging
        self._spec = spec
        self._memory = memory
        self._device = device
        self._member = member

    @property
    def programs(self) -> list[tuple[Program, int]]:
        """What was compiled, with its number of slots."""
        both = (self.training, self._spec.in_flight), (self.inference, INFERENCE_SLOTS)
        return [(program, slots) for program, slots in both if program is not None]

    def compile(self, training: bool) -> Program:
        """The program for training or for inference, made by the first call."""
        made = self.training if training else self.inference
        if made is not None:
            return made
        plan = self._plan(training)
        slots = self._spec.in_flight if training else INFERENCE_SLOTS
        shared = dict(self._memory.storage[self._member].segments)
        program = self._device.compile(plan, shared, slots)
        if training:
            self.training = program
            if "input_gradient" in plan.segments:
                program.fill("input_gradient")
        else:
            self.inference = program
        return program

    def write(self, inputs: Mapping[str, Array], training: bool, slot: int) -> None:
        """Write those of the inputs that the stage reads itself."""
        program = self.compile(training)
        plan = program.plan
        for name, array in inputs.items():
            if name in plan.tensors["input"] or name in plan.csr:
                program.write("input", name, array, slot)

    def forward(
        self, section: Section, slot: int, key: StepKey, lost: bool
    ) -> BaseException | None:
        """Run forward; without a result if something is `lost` already.

        Returns:
            What went wrong here.
        """
        training = section == "forward"
        program = self.training if training else self.inference

        def run() -> None:
            assert program is not None
            program.launch(section, slot, key)
            program.wait()

        done, error = _pass(self._links.forward, program, slot, run, lost)
        if training:
            self.ready = done
        return error

    def backward(self, slot: int, lost: bool) -> BaseException | None:
        """Run backward, if the forward succeeded; returns what went wrong here."""
        program = self.training

        def run() -> None:
            assert program is not None
            self.adding = True
            program.launch("backward", slot)
            program.wait()

        lost = lost or not self.ready
        return _pass(self._links.backward, program, 0, run, lost)[1]

    def commit(self, slot: int) -> None:
        """Make the last training forward's auxiliary states the current ones."""
        if self._commits:
            assert self.training is not None
            self.training.launch("commit", slot)
            self.training.wait()

    def take_back(self) -> bool:
        """Take back the last `commit`; False if the device cannot do that."""
        return not self._commits or (
            self.training is not None and self.training.undo("commit")
        )

    def take_back_sums(self) -> bool:
        """Take back what this pass has added; False if the device cannot do that."""
        program, began, self.adding = self.training, self.adding, False
        if program is None or not began or not program.plan.accumulated:
            return True
        return program.undo("backward")

    def close(self) -> None:
        """Free the programs; idempotent."""
        for program, _ in self.programs:
            program.close()

    @property
    def _commits(self) -> bool:
        program = self.training
        return program is not None and "commit" in program.plan.sections

    def _plan(self, training: bool) -> Plan:
        stage, spec = self._stage, self._spec
        variables = {node.name for node in stage.graph.arguments}
        fed = [i.name for i in spec.inputs if i.name in variables]
        parameters, auxiliaries = self._memory.layouts(self._member)
        return compile_plan(
            Request(
                stage.graph,
                (*fed, *stage.received.values()),
                {},
                gradients=self._links.requests if training else {},
                is_train=training,
                parameters=parameters,
                auxiliaries=auxiliaries,
                native=self._device.native,
                guards=spec.guards,
                gradient_rows=self._memory.rows_of(self._member),
                csr=spec.csr.intersection(variables),
                inference=stage.infer(self._staging.inference),
                positions=self._staging.positions,
            )
        )


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
    sent: list[tuple[Channel, Any]] = []
    if not lost:
        try:
            assert program is not None
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
    if lost or error is not None:
        sent = [(channel, LOST) for link in links for channel in link.leaves]
    for channel, value in sent:
        channel.put(value)
    return not lost and error is None, error


def _slot(link: Link, slot: int) -> int:
    return slot if link.segment in ("input", "output") else 0
