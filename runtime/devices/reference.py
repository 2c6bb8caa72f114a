"""The oracle: runs any graph by its NumPy definitions, in plain host memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from runtime.devices.contract import Segment
from runtime.devices.host import Allocate, HostProgram, allocate
from runtime.graph.plan import Plan


@dataclass(frozen=True)
class ReferenceDevice:
    """`mx.reference(i)`. All reference devices share one memory space."""

    name: str = "reference(0)"
    memory_space: str = "host"
    native: None = None
    linger: None = None

    def compile(
        self,
        plan: Plan,
        shared: Mapping[str, Segment] | None = None,
        slots: int = 1,
        allocate: Allocate = allocate,
    ) -> HostProgram:
        return HostProgram(self.name, plan, shared, slots, allocate=allocate)
