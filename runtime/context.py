"""Names of devices, as plain values: which kind, which one, how it is run."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass
from typing import Self


@dataclass(frozen=True, slots=True)
class DeviceId:
    """A device, named and not yet opened; equal values name the same device.

    In a `with` statement it is `current()` for the body, in this task alone.

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

    def __enter__(self) -> Self:
        _entered.set((*_entered.get(), self))
        return self

    def __exit__(self, *exception: object) -> None:
        _entered.set(_entered.get()[:-1])


_entered: ContextVar[tuple[DeviceId, ...]] = ContextVar("entered", default=())


def current() -> DeviceId:
    """The device of the innermost `with` statement; the first CPU outside of all."""
    entered = _entered.get()
    return entered[-1] if entered else DeviceId("cpu")
