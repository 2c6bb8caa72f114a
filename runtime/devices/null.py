"""A device that plans and checks everything and runs nothing.

For measuring what the runtime itself costs, and for reading plans. Its results are
zeros.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from runtime.devices.contract import Segment
from runtime.devices.host import Allocate, Bound, HostProgram, allocate
from runtime.graph.plan import Plan, Row


class NullProgram(HostProgram):
    """Host memory, filled with zeros, and no rows."""

    def bind(self, rows: Sequence[Row], slot: int) -> list[Bound]:
        return []


@dataclass(frozen=True)
class NullDevice:
    """Plans as the reference device does."""

    name: str = "null(0)"
    memory_space: str = "host"
    native: None = None
    linger: None = None

    def compile(
        self,
        plan: Plan,
        shared: Mapping[str, Segment] | None = None,
        slots: int = 1,
        allocate: Allocate = allocate,
    ) -> NullProgram:
        return NullProgram(self.name, plan, shared, slots, 0, allocate)
