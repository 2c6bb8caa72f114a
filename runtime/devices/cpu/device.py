"""The CPU device: runs of native rows are one call into the plan VM.

Next: `runtime.kernels.cpu.vm`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeGuard

import numpy as np
from numpy.typing import NDArray

from runtime.actors.linger import Linger, depart
from runtime.devices.contract import Program, Segment, StepKey
from runtime.devices.cpu.fused import FusedStep
from runtime.devices.cpu.joined import JoinedSteps
from runtime.devices.cpu.native import CpuNative
from runtime.devices.host import Allocate, Bound, HostProgram, allocate
from runtime.devices.rows import Run
from runtime.graph.build import Native
from runtime.graph.plan import (
    STEP_KEY,
    Address,
    NativeRow,
    Plan,
    Row,
    Section,
)
from runtime.kernels.cpu.library import Library, load
from runtime.kernels.cpu.table import encode

INLINE_MICROSECONDS = 50.0
_SIGN = 1 << 63  # of a seed, only the low 64 bits count


class CpuProgram(HostProgram):
    """Host memory, native rows in tables, definition rows in between."""

    def __init__(
        self,
        device: str,
        plan: Plan,
        shared: Mapping[str, Segment] | None,
        slots: int,
        library: Library,
        allocate: Allocate = allocate,
    ) -> None:
        self._library = library
        self._keep: list[NDArray[np.int64]] = []
        super().__init__(device, plan, shared, slots, allocate=allocate)
        self.native = plan.all_native
        self._key = self._view_of_key()
        self._steps = (
            [self._whole_step(slot) for slot in range(slots)]
            if self.native and "backward" in plan.sections
            else None
        )
        sections: tuple[Section, ...] = tuple(plan.sections)
        self.inline = self.native and plan.cost(*sections) < INLINE_MICROSECONDS

    def bind(self, rows: Sequence[Row], slot: int) -> list[Bound]:
        bound: list[Bound] = []
        run: list[NativeRow] = []
        others: list[Row] = []
        for row in rows:
            if isinstance(row, NativeRow):
                bound += super().bind(others, slot)
                others = []
                run.append(row)
            else:
                bound += self._bind_native(run, slot)
                run = []
                others.append(row)
        return [*bound, *self._bind_native(run, slot), *super().bind(others, slot)]

    def _bind_native(self, rows: Sequence[NativeRow], slot: int) -> list[Bound]:
        if not rows:
            return []
        table = np.stack([self._encode(row, slot) for row in rows])
        self._keep.append(table)
        reads = tuple(span for row in rows for span in row.reads)
        writes = tuple(span for row in rows for span in row.writes)
        return [Bound(_call(self._library, table), reads, writes)]

    def _encode(self, row: NativeRow, slot: int) -> NDArray[np.int64]:
        values: dict[str, int | float] = {}
        for name, operand in row.operands.items():
            if isinstance(operand, Address):
                values[name] = self.pointer(operand, slot)
            elif isinstance(operand, tuple):
                pointers = [self.pointer(address, slot) for address in operand]
                table = np.array(pointers, np.int64)
                self._keep.append(table)
                values[name] = table.ctypes.data
            else:
                values[name] = operand
        words = encode(row.kernel, values)
        words[0] = self._library.address(row.kernel)
        return words

    def _view_of_key(self) -> NDArray[np.int64] | None:
        """Where native rows find the key, if there are some that ask for it."""
        if STEP_KEY not in self.segments:
            return None
        begin = self.plan.guards
        words = len(StepKey._fields)
        return self.segments[STEP_KEY].data[begin : begin + 8 * words].view(np.int64)

    def announce(self, key: StepKey) -> None:
        """Have the rows that are run next draw their numbers by this key."""
        if self._key is not None:
            self._key[:] = [(word + _SIGN) % (2 * _SIGN) - _SIGN for word in key]

    def _step(self, slot: int, key: StepKey) -> None:
        """In one call if all of it is native: repacking is part of every step."""
        if self._steps is None:
            super()._step(slot, key)
            return
        self.announce(key)
        run = self._steps[slot]
        depart()
        run()
        self.stepped(slot, key, self.versions())

    def stepped(self, slot: int, key: StepKey, versions: list[int]) -> None:
        """Note that a whole step was run, with these versions of the parameters."""
        self._forward, self._backward_done = (slot, key), True
        self._packed = versions

    def _whole_step(self, slot: int) -> Callable[[], None]:
        """What runs all rows of a step."""
        table = np.stack(self.encoded(("pack", "forward", "backward"), slot))
        self._keep.append(table)
        return self._library.runner(table)

    def encoded(
        self, sections: Sequence[Section], slot: int
    ) -> list[NDArray[np.int64]]:
        """The rows of sections that are all native."""
        rows = [row for s in sections for row in self.plan.sections.get(s, ())]
        return [self._encode(row, slot) for row in rows if _is_native(row)]

    def can_fuse(self, update: Program, parties: int) -> bool:
        """See `runtime.devices.fusing`."""
        return (
            isinstance(update, CpuProgram)
            and self._library.beside_threads
            and self._steps is not None
            and update.native
            and not self.plan.guards
        )

    def fuse(self, update: Program) -> FusedStep:
        """See `runtime.devices.fusing`."""
        assert isinstance(update, CpuProgram)
        return FusedStep(self, update, self._slots, self._library)

    def join(self, steps: Sequence[tuple[Program, Program]]) -> JoinedSteps | None:
        """See `runtime.devices.fusing`."""
        joined = [
            (training, update)
            for training, update in steps
            if isinstance(training, CpuProgram)
            and isinstance(update, CpuProgram)
            and training._steps is not None
            and update.native
            and not training.plan.guards
        ]
        return JoinedSteps(joined, self._library) if len(joined) == len(steps) else None

    def _run(self, section: Section, slot: int, key: StepKey) -> None:
        self.announce(key)
        if not self.native:
            super()._run(section, slot, key)
            return
        if not self.inline:
            depart()
        for bound in self._sections[slot].get(section, ()):
            bound.run(key)

    def close(self) -> None:
        super().close()
        self._keep = []
        self._key = None


def _is_native(row: Row) -> TypeGuard[NativeRow]:
    return isinstance(row, NativeRow)


def _call(library: Library, table: NDArray[np.int64]) -> Run:
    run = library.runner(table)
    return lambda key: run()


@dataclass(frozen=True)
class CpuDevice:
    """`mx.cpu(i)`: one thread of this machine."""

    name: str = "cpu(0)"
    memory_space: str = "host"

    @cached_property
    def _library(self) -> Library:
        return load()

    @cached_property
    def native(self) -> Native | None:
        """None without Numba: then the definitions run everything, slower."""
        return CpuNative() if self._library.available else None

    @cached_property
    def linger(self) -> Linger | None:
        library = self._library
        if not library.beside_threads:
            return None
        return Linger(library.linger(), library.hand_over())

    def compile(
        self,
        plan: Plan,
        shared: Mapping[str, Segment] | None = None,
        slots: int = 1,
        allocate: Allocate = allocate,
    ) -> CpuProgram:
        return CpuProgram(self.name, plan, shared, slots, self._library, allocate)
