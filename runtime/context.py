"""Names of devices, as plain values: which kind, which one, how it is run."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class DeviceId:
    """A device, named and not yet opened; equal values name the same device.

    Attributes:
        kind: `cpu`, `gpu`, `reference`, `null` or `simulated`.
        index: Which one of its kind, from 0.
        worker: `thread`, or `process` for a worker process of its own.
        threads: How many threads share the work of the device.
    """

    kind: str
    index: int = 0
    worker: str = "thread"
    threads: int = 1

    @property
    def device_type(self) -> str:
        """MXNet's name for `kind`."""
        return self.kind

    @property
    def device_id(self) -> int:
        """MXNet's name for `index`."""
        return self.index

    def __str__(self) -> str:
        return f"{self.kind}({self.index})"
