"""Devices of this process whose launches can be taken back, as worker processes' can.

Where threads and worker processes share a batch, and a device is dropped when its
worker dies, the step that it died in must be none on the threads, too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from runtime.devices.contract import Device, Program, Segment
from runtime.devices.host import HostProgram
from runtime.devices.process.journal import Journal
from runtime.devices.process.journal_layout import Layout
from runtime.devices.process.memory import PRIVATE
from runtime.graph.plan import Plan, Section

if TYPE_CHECKING:
    from runtime.actors.linger import Linger
    from runtime.graph.build import Native


class Undoing:
    """A journal of a host program, whose last launch of each section it takes back."""

    def __init__(self, program: HostProgram) -> None:
        layout = _all_ahead(Layout.of(program.plan, PRIVATE))
        data = np.zeros(layout.nbytes, np.uint8)
        self._journal = Journal(layout, data, lambda n, s: program.segment(n, s).data)
        self._number = 0
        self._launched: dict[Section, tuple[int, int]] = {}

    def begin(self, section: Section, slot: int) -> None:
        """Save what a launch is about to change."""
        self._launched.pop(section, None)
        self._number += 1
        self._journal.begin(section, slot, self._number)
        self._launched[section] = slot, self._number

    def undo(self, section: Section) -> None:
        """Put that back; nothing if there was no launch."""
        launched = self._launched.pop(section, None)
        if launched is not None:
            self._journal.undo(section, *launched)


@dataclass(frozen=True)
class UndoingDevice:
    """Another device, whose programs save what they change before they change it."""

    inner: Device

    @property
    def name(self) -> str:
        return self.inner.name

    @property
    def memory_space(self) -> str:
        return self.inner.memory_space

    @property
    def native(self) -> Native | None:
        return self.inner.native

    @property
    def linger(self) -> Linger | None:
        return self.inner.linger

    def compile(
        self,
        plan: Plan,
        shared: Mapping[str, Segment] | None = None,
        slots: int = 1,
    ) -> Program:
        program = self.inner.compile(plan, shared, slots)
        if isinstance(program, HostProgram):
            program.undoing = Undoing(program)
        return program

    def close(self) -> None:
        """It belongs to whoever opened it."""


def _all_ahead(layout: Layout) -> Layout:
    """Also what rows save by themselves in a worker process, before they begin."""
    entries = {
        section: replace(
            entry,
            kept=(*entry.kept, *(copy for row in entry.within for copy in row)),
            within=(),
        )
        for section, entry in layout.entries.items()
    }
    return Layout(entries, layout.nbytes)
