"""A worker that kills itself at a given point; started in place of the real one.

The point stands in the environment as JSON: at which launch of which section, before
which row of it (or around the journal's work), by which signal.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import repeat

from runtime.devices.contract import StepKey
from runtime.devices.cpu.device import CpuProgram
from runtime.devices.host import Bound, HostProgram
from runtime.devices.process import journal, process, worker
from runtime.devices.rows import Run
from runtime.graph.plan import Row, Section

_PARTS = {"step": ("step", "forward", "backward")}  # of one launch
VARIABLE = "ASYNCMOD_TEST_SABOTAGE"


@dataclass(frozen=True)
class Point:
    """Where a worker kills itself.

    Attributes:
        section: In which section.
        rows: Before which row in its first life, its second, ...; "saving", "saved" or
            "ended" around the journal.
        launch: At which launch of the section in that life, from 1.
        index: Of which device.
        signal: By which signal; SIGALRM stands for sleeping instead, SIGVTALRM for a
            loop in C that keeps the interpreter for itself.
    """

    section: str
    rows: tuple[int | str, ...] = (0,)
    launch: int = 1
    index: int = 0
    signal: int = signal.SIGKILL


@contextmanager
def sabotaged(point: Point) -> Iterator[None]:
    """All workers started in this block kill themselves at this point."""
    import pytest  # here, since workers load this module too and do not need it

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(process, "COMMAND", ("-m", __name__))
        patch.setenv(VARIABLE, json.dumps(asdict(point)))
        yield


def sleep_for_ever() -> None:
    """Hang, but let the interpreter go on."""
    while True:
        time.sleep(60)


def loop_for_ever() -> None:
    """Hang in compiled code: no other thread of the interpreter runs any more."""
    sum(repeat(0))


class Saboteur:
    """Counts what the worker does and ends it at the point."""

    def __init__(self, point: Point, row: int | str) -> None:
        self.point = point
        self.row = row
        self.launches = 0

    def come(self, section: str, row: int | str) -> None:
        """The worker is about to do this."""
        point = self.point
        if row == "saving" and point.section in _PARTS.get(section, (section,)):
            self.launches += 1
        if section != point.section:
            return
        if row == self.row and self.launches == point.launch:
            if point.signal == signal.SIGALRM:
                sleep_for_ever()
            if point.signal == signal.SIGVTALRM:
                loop_for_ever()
            os.kill(os.getpid(), point.signal)

    def install(self) -> None:
        """Run every row by itself, and stop by at all points."""
        saboteur = self
        begin, end = journal.Journal.begin, journal.Journal.end
        save = journal.Journal.save

        def begun(
            self: journal.Journal, section: Section, slot: int, n: int, saved: int
        ) -> None:
            saboteur.come(section, "saving")
            begin(self, section, slot, n, saved)

        def saved(self: journal.Journal, section: Section, slot: int) -> None:
            save(self, section, slot)
            saboteur.come(section, "saved")

        def ended(self: journal.Journal, section: Section, n: int) -> None:
            end(self, section, n)
            saboteur.come(section, "ended")

        def bind_sections(self: HostProgram, slot: int) -> dict[Section, list[Bound]]:
            return {
                section: list(saboteur.bind(self, section, rows, slot))
                for section, rows in self.plan.sections.items()
            }

        def run(self: CpuProgram, section: Section, slot: int, key: StepKey) -> None:
            self.announce(key)
            HostProgram._run(self, section, slot, key)

        journal.Journal.begin = begun  # type: ignore[method-assign]
        journal.Journal.save = saved  # type: ignore[method-assign]
        journal.Journal.end = ended  # type: ignore[method-assign]
        HostProgram._bind_sections = bind_sections  # type: ignore[method-assign]
        CpuProgram._run = run  # type: ignore[method-assign]
        CpuProgram._step = HostProgram._step  # type: ignore[method-assign]

    def bind(
        self, program: HostProgram, section: str, rows: Sequence[Row], slot: int
    ) -> Iterator[Bound]:
        for i, row in enumerate(rows):
            yield Bound(self.visit(section, i))
            yield from program.bind([row], slot)
        yield Bound(self.visit(section, len(rows)))

    def visit(self, section: str, row: int) -> Run:
        def run(key: StepKey) -> None:
            self.come(section, row)

        return run


if __name__ == "__main__":
    import sys

    settings = json.loads(os.environ[VARIABLE])
    chosen = Point(**settings)
    generation, index = int(sys.argv[2]), int(sys.argv[6])
    if generation <= len(chosen.rows) and index == chosen.index:
        Saboteur(chosen, chosen.rows[generation - 1]).install()
    worker.main()
