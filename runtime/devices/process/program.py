"""A program whose rows run in a worker process, over memory that lies here too.

What is written and read needs no message. Anything launched is one.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from runtime.actors.affinity import cores
from runtime.actors.meeting import Meeting
from runtime.devices.contract import (
    FIRST_STEP,
    Array,
    OnDeath,
    Program,
    Segment,
    StepKey,
)
from runtime.devices.fusing import Phases
from runtime.devices.host import Bound, HostProgram, HostSegment
from runtime.devices.process.csr import CsrInputs
from runtime.devices.process.journal import Journal
from runtime.devices.process.journal_layout import Layout
from runtime.devices.process.memory import PRIVATE, Block, SharedSegment, lay_out
from runtime.errors import ClosedError, GradientError, WorkerDied
from runtime.graph.plan import Plan, Row, Section

if TYPE_CHECKING:
    from runtime.devices.process.client import Worker


@dataclass(frozen=True, slots=True)
class Launch:
    """A section that a worker is to run.

    Attributes:
        program: Whose.
        section, slot, key: As `contract.Program.launch` was given them.
        version: Of parameters and auxiliary states, by which the worker knows whether
            to repack weights.
        saved: What `Journal.save_ahead` has returned.
    """

    program: ProcessProgram
    section: Section
    slot: int
    key: StepKey
    version: int
    saved: int = 0

    @property
    def step(self) -> int | None:
        """Which training forward it belongs to."""
        belongs = self.section in ("forward", "backward", "step")
        return self.key.step if belongs else None


class ProcessProgram(HostProgram):
    """See the module, and `contract.Program` for the promises.

    Attributes:
        number: What the worker knows it by.
        blocks: The shared memory that it uses.
        csr_inputs: Where its CSR inputs lie.
        journal: What undoes its last launches.
        on_death: What is to be done if the worker dies.
        launched: Slot and number of the last launch of each section.
        failure: What went wrong in launched work and nobody has heard of.
        lost: The death after which nothing is launched any more, since its device is to
            be dropped; what lies in its memory can still be read.
    """

    def __init__(
        self,
        worker: Worker,
        number: int,
        plan: Plan,
        shared: Mapping[str, Segment],
        slots: int,
        on_death: OnDeath,
    ) -> None:
        self.number = number
        self.slots = slots
        self.failure: Exception | None = None
        self.lost: WorkerDied | None = None
        self.launched: dict[Section, tuple[int, int]] = {}
        self.on_death = on_death
        self._worker = worker
        # Of the last training forward: in which process it ran, with which parameters.
        self._forward_generation = 0
        self._forward_version = 0
        layout = Layout.of(plan, PRIVATE)
        self._block, made, begin = lay_out(plan, shared, slots, layout)
        self._journal_place = begin, layout.nbytes

        def allocate(
            name: str, slot: int, nbytes: int, fill: int | None
        ) -> HostSegment:
            return HostSegment(0) if name in PRIVATE else made[name][slot]

        try:
            super().__init__(worker.name, plan, shared, slots, allocate=allocate)
        except BaseException:
            self._block.leave()
            raise
        self.csr_inputs = CsrInputs(plan.csr, partial(worker.show_csr, self))
        self.journal = Journal(
            layout,
            self._block.memory.data[begin : begin + layout.nbytes],
            lambda name, slot: self.segment(name, slot).data,
        )
        others = {
            segment.block.number: segment.block
            for segment in self.segments.values()
            if isinstance(segment, SharedSegment) and segment.block is not self._block
        }
        for block in others.values():
            block.join()
        self.blocks: tuple[Block, ...] = (self._block, *others.values())

    # The contract ----------------------------------------------------------------

    def write(
        self,
        segment: str,
        name: str,
        value: Array,
        slot: int = 0,
        *,
        rows: int | None = None,
    ) -> None:
        self.wait()
        if segment == "input" and name in self.plan.csr:
            matrix = self.csr_inputs.write(name, slot, value)
            self.csr_place(self.plan.csr[name], slot).matrix = matrix
            return
        super().write(segment, name, value, slot, rows=rows)

    def fill(self, segment: str, value: float = 0.0) -> None:
        self.wait()
        super().fill(segment, value)

    def launch(
        self, section: Section, slot: int = 0, key: StepKey = FIRST_STEP
    ) -> None:
        self._worker.launch([self.prepare(section, slot, key)])

    def prepare(
        self,
        section: Section,
        slot: int = 0,
        key: StepKey = FIRST_STEP,
        saved: int = 0,
    ) -> Launch:
        """Note that a section is about to run."""
        if self._closed:
            raise ClosedError(f"a program on {self.device} was used after close")
        if section == "backward":
            if self._forward is None:
                raise GradientError("backward needs a training forward before it")
            slot, key = self._forward
        elif section in ("forward", "step"):
            self._forward = slot, key
        self.changed(section)
        self.launched.pop(section, None)
        if section in ("forward", "step", "backward"):
            self.launched.pop("commit", None)  # of an earlier step
        if self.lost is not None:
            raise self.lost.again()
        return Launch(self, section, slot, key, self.version, saved)

    def sent(self, launch: Launch, number: int) -> None:
        """Note which request has told the worker of a launch."""
        self.launched[launch.section] = launch.slot, number
        if launch.section in ("forward", "step", "backward"):
            self._backward_done = launch.section != "forward"

    def wait(self) -> None:
        self._worker.finish(self)

    def close(self) -> None:
        if self._closed:
            return
        self._worker.forget(self)
        super().close()
        self.csr_inputs.close()
        del self.csr_inputs, self.journal  # both refer to this program
        for block in self.blocks:
            block.leave()
        self.blocks = ()

    def can_fuse(self, update: Program, parties: int) -> bool:
        """See `runtime.devices.fusing`: alone, since a worker cannot meet others."""
        return parties == 1 and isinstance(update, ProcessProgram)

    def fuse(self, update: Program) -> FusedLaunches:
        """See `runtime.devices.fusing`."""
        assert isinstance(update, ProcessProgram)
        return FusedLaunches(self._worker, self, update, linger=len(cores()) > 1)

    def undo(self, section: Section) -> bool:
        launched = self.launched.get(section)
        if launched is not None:
            self.journal.undo(section, *launched)
            self.changed(section)
        return True

    # For the worker --------------------------------------------------------------

    @property
    def version(self) -> int:
        """Of the parameters and the auxiliary states, as one number."""
        kept = (self.segments.get(name) for name in ("parameter", "auxiliary"))
        return sum(segment.version for segment in kept if segment is not None)

    def lost_forward(self, launch: Launch, generation: int) -> Launch | None:
        """The forward to be run again before a backward, if it died with its worker.

        Args:
            launch: What is to be launched now.
            generation: Of the process in which it will run.

        Raises:
            GradientError: the parameters have changed since that forward.
        """
        if launch.section in ("forward", "step"):
            self._forward_generation = generation
            self._forward_version = self.version
        if launch.section != "backward" or self._forward_generation == generation:
            return None
        if not self._backward_done and self.version != self._forward_version:
            raise GradientError(
                f"the worker of {self.device} died after the forward that this "
                "backward belongs to, and the parameters have changed since: run the "
                "forward again"
            )
        return Launch(self, "forward", launch.slot, launch.key, self.version)

    def places(self) -> dict[str, list[list[int]]]:
        """Where its segments lie, by name and slot."""
        found: dict[str, list[list[int]]] = {}
        for name in self.plan.segments:
            if name in PRIVATE:
                continue
            copies = self._slotted.get(name, [self.segments[name]])
            found[name] = [s.place for s in copies if isinstance(s, SharedSegment)]
        return found

    def journal_place(self) -> list[int]:
        """Where the journal lies: memory, offset, size."""
        return [self._block.number, *self._journal_place]

    def bind(self, rows: Sequence[Row], slot: int) -> list[Bound]:
        return []


@dataclass(frozen=True, slots=True)
class FusedLaunches:
    """A step and its update, asked for one behind the other and waited for once.

    What the update changes is saved here while the worker computes gradients.
    """

    worker: Worker
    training: ProcessProgram
    update: ProcessProgram
    linger: bool

    def launch(
        self,
        inputs: Mapping[str, Array],
        slot: int,
        key: StepKey,
        meeting: Meeting,
    ) -> Phases:
        """See `runtime.devices.fusing.Fused`; alone at the meeting."""
        training, update = self.training, self.update
        begin = time.perf_counter()
        for name, array in inputs.items():
            training.write("input", name, array, slot)
        update.launched.clear()  # of an earlier step, which is not to be taken back
        try:
            launches = [training.prepare("step", slot, key)]
            if "commit" in training.plan.sections:
                launches.append(training.prepare("commit", slot))
            self.worker.launch(launches)
            saved = update.journal.save_ahead("update", 0, self.worker.is_heard)
            last = [update.prepare("update", saved=saved)]
            self.worker.launch(last, after=True, linger=self.linger)
            training.wait()
            update.wait()
        except BaseException:
            update.failure = None  # it says only that it was left out
            training.undo("step")
            training.undo("commit")
            update.undo("update")
            raise
        return Phases(True, time.perf_counter() - begin, 0.0)
