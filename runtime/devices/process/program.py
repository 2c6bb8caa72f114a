"""A program whose rows run in a worker process, over memory that lies here too.

What is written and read needs no message. Anything launched is one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from runtime.devices.contract import FIRST_STEP, Array, OnDeath, Segment, StepKey
from runtime.devices.host import Bound, HostProgram, HostSegment
from runtime.devices.process.journal import Journal, Layout
from runtime.devices.process.memory import PRIVATE, Block, SharedSegment, lay_out
from runtime.errors import ClosedError, GradientError
from runtime.graph.plan import Plan, Row, Section

if TYPE_CHECKING:
    from runtime.devices.process.client import Worker


@dataclass(frozen=True, slots=True)
class Launch:
    """A section that a worker was told to run.

    Attributes:
        section, slot, key: As `contract.Program.launch` was given them.
        saved: Whether the journal has already what the section will change.
    """

    section: Section
    slot: int
    key: StepKey
    saved: bool = False

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
        journal: What undoes its last launches.
        on_death: What is to be done if the worker dies.
        launched: Slot and number of the last launch of each section.
        failure: What went wrong in launched work and nobody has heard of.
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
        self.launched: dict[Section, tuple[int, int]] = {}
        self.on_death = on_death
        self._worker = worker
        # Of the last training forward: in which process it ran, with which parameters.
        self._forward_generation = 0
        self._forward_version = 0
        layout = Layout.of(plan, PRIVATE)
        self._updated = layout.changed_by("update")
        self._block, made, begin = lay_out(plan, shared, slots, layout.nbytes)
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
        super().write(segment, name, value, slot, rows=rows)

    def fill(self, segment: str, value: float = 0.0) -> None:
        self.wait()
        super().fill(segment, value)
        self._count_write(segment)

    def launch(
        self, section: Section, slot: int = 0, key: StepKey = FIRST_STEP
    ) -> None:
        if self._closed:
            raise ClosedError(f"a program on {self.device} was used after close")
        if section == "backward":
            if self._forward is None:
                raise GradientError("backward needs a training forward before it")
            slot, key = self._forward
        elif section == "update":
            self.segments["parameter"].version += 1
        elif section in ("forward", "step"):
            self._forward = slot, key
        self.launched.pop(section, None)
        if section in ("forward", "step", "backward"):
            self.launched.pop("commit", None)  # of an earlier step
        self._worker.launch(self, Launch(section, slot, key))
        if section in ("forward", "step", "backward"):
            self._backward_done = section != "forward"

    def wait(self) -> None:
        self._worker.finish(self)

    def close(self) -> None:
        if self._closed:
            return
        self._worker.forget(self)
        super().close()
        del self.journal
        for block in self.blocks:
            block.leave()
        self.blocks = ()

    def undo(self, section: Section) -> bool:
        launched = self.launched.get(section)
        if launched is not None:
            self.journal.undo(section, *launched)
            if section == "update":
                self.segments["parameter"].version += 1
        return True

    def _count_write(self, segment: str) -> None:
        shared = self.segments[segment]
        if isinstance(shared, SharedSegment):
            shared.writes += 1

    # For the worker --------------------------------------------------------------

    def save_update(self) -> tuple[int, ...]:
        """Save what the next update will change; see `Worker.finish`.

        Returns:
            How often that memory had been written to before.
        """
        writes = self.writes()
        self.journal.save("update", 0)
        return writes

    def writes(self) -> tuple[int, ...]:
        """How often what an update changes has been written to from this process."""
        segments = [self.segments[name] for name in self._updated]
        return tuple(s.writes for s in segments if isinstance(s, SharedSegment))

    @property
    def version(self) -> int:
        """Of the parameters, by which the worker knows whether to repack them."""
        segment = self.segments.get("parameter")
        return 0 if segment is None else segment.version

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
        return Launch("forward", launch.slot, launch.key)

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
