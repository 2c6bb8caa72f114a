"""A device in a process of its own: its memory is shared, its death is survived.

Next: `runtime.devices.process.client`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

from runtime.actors.supervisor import WorkerPolicy
from runtime.devices.contract import Device, Home, OnDeath, Segment
from runtime.devices.process.client import Worker
from runtime.devices.process.process import check_available
from runtime.devices.process.program import ProcessProgram
from runtime.graph.build import Native
from runtime.graph.plan import Plan


class Alone:
    """The home of a device that nobody owns: it is started again without end."""

    policy = WorkerPolicy()

    def started(self, pid: int) -> None:
        """Nothing to do."""

    def ended(self) -> None:
        """Nothing to do."""

    def may_restart(self, name: str) -> bool:
        return True


@dataclass(frozen=True)
class ProcessDevice:
    """A device of another kind that runs in a worker process.

    Attributes:
        inner: The same device in this process: it says what plans look like.
        worker: The process.
        on_death: What programs compiled from now on want done if it dies.
    """

    inner: Device
    worker: Worker
    on_death: OnDeath = "restart"
    linger: None = None  # the cores are for the workers

    @classmethod
    def open(
        cls,
        inner: Device,
        kind: str,
        index: int,
        home: Home | None = None,
    ) -> ProcessDevice:
        """Name the device; its process starts when something is compiled.

        Raises:
            DeviceError: this system cannot run worker processes.
        """
        check_available()
        return cls(inner, Worker(inner.name, kind, index, home or Alone()))

    @property
    def name(self) -> str:
        return self.inner.name

    @property
    def memory_space(self) -> str:
        """All worker processes of a machine can map the same memory."""
        return "shared"

    @cached_property
    def native(self) -> Native | None:
        return self.inner.native

    def compile(
        self,
        plan: Plan,
        shared: Mapping[str, Segment] | None = None,
        slots: int = 1,
    ) -> ProcessProgram:
        return self.worker.compile(plan, shared or {}, slots, self.on_death)

    def under(self, on_death: OnDeath) -> ProcessDevice:
        """The same device, for programs that want something else done."""
        return replace(self, on_death=on_death)

    def start(self) -> None:
        """Start the process now, not at the first `compile`."""
        self.worker.start(self.on_death)

    def rest(self) -> None:
        """End the process if no program is left; on the device's thread."""
        self.worker.rest()

    def close(self) -> None:
        """End the process; on the device's thread."""
        self.worker.close()
