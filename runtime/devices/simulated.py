"""A device that behaves like a GPU: memory of its own, late and reordered completion.

Launched rows wait in a queue. They run, in any order that their declared reads and
writes allow, when somebody waits, or at a random moment before that; the order is
seeded. Fresh memory is full of NaN and nothing is shared with other devices. A plan or
a group that passes on this device makes no hidden assumption about time or memory.
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from runtime.devices.contract import Array, Segment, StepKey
from runtime.devices.host import Bound, HostProgram, HostSegment
from runtime.errors import DeviceError
from runtime.graph.plan import Plan, Section

_NAN_BYTE = 0xFF  # all ones is a NaN in every float format


class SimulatedSegment(HostSegment):
    """Memory that only its own device accepts."""

    __slots__ = ("space",)

    def __init__(self, segment: HostSegment, space: str) -> None:
        self.data = segment.data
        self.nbytes = segment.nbytes
        self.version = segment.version
        self.space = space


class SimulatedProgram(HostProgram):
    """Queues what is launched; see the module."""

    def __init__(
        self,
        device: str,
        plan: Plan,
        shared: Mapping[str, Segment] | None,
        slots: int,
        seed: int,
    ) -> None:
        for name, segment in (shared or {}).items():
            if getattr(segment, "space", None) != device:
                raise DeviceError(f"segment `{name}` is not memory of {device}")
        self._queue: list[tuple[Bound, StepKey]] = []
        self._random = random.Random(seed)
        super().__init__(device, plan, shared, slots, fill=_NAN_BYTE)
        # Rows are bound to the data, which the renamed segments keep.
        self.segments = {
            name: (
                segment
                if isinstance(segment, SimulatedSegment)
                else SimulatedSegment(segment, device)
            )
            for name, segment in self.segments.items()
        }

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
        super().write(segment, name, value.copy(), slot, rows=rows)

    def fill(self, segment: str, value: float = 0.0) -> None:
        self.wait()
        super().fill(segment, value)

    def wait(self) -> None:
        self._drain(len(self._queue))

    def close(self) -> None:
        self._queue = []
        super().close()

    def _run(self, section: Section, slot: int, key: StepKey) -> None:
        self._queue += [(b, key) for b in self._sections[slot].get(section, ())]
        self._drain(self._random.randint(0, len(self._queue)))

    def _drain(self, count: int) -> None:
        for _ in range(count):
            ready = self._ready()
            bound, key = self._queue.pop(self._random.choice(ready))
            try:
                with np.errstate(all="ignore"):
                    bound.run(key)
            except BaseException:
                self._queue = []
                raise

    def _ready(self) -> list[int]:
        """Positions of queued rows that conflict with no earlier one."""
        ready: list[int] = []
        for i, (bound, _) in enumerate(self._queue):
            if not any(_conflict(bound, b) for b, _ in self._queue[:i]):
                ready.append(i)
            if len(ready) == 3:
                break
        return ready


@dataclass(frozen=True)
class SimulatedDevice:
    """One simulated GPU; its memory space is its own."""

    name: str = "simulated(0)"
    native: None = None
    linger: None = None

    @property
    def memory_space(self) -> str:
        return self.name

    def compile(
        self,
        plan: Plan,
        shared: Mapping[str, Segment] | None = None,
        slots: int = 1,
    ) -> SimulatedProgram:
        seed = zlib.crc32(self.name.encode())
        return SimulatedProgram(self.name, plan, shared, slots, seed)


def _conflict(a: Bound, b: Bound) -> bool:
    """Whether the order of two rows matters."""
    return any(w.overlaps(r) for w in a.writes for r in (*b.reads, *b.writes)) or any(
        w.overlaps(r) for w in b.writes for r in a.reads
    )
