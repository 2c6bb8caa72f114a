"""A training step and its update in one launch, for devices that can do that.

Without it a device thread comes back from the gradients to Python, meets the others and
goes out again; with several threads each such return waits for the interpreter lock.

Next: `runtime.devices.cpu.fused`, the one implementation.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from numpy.typing import NDArray

from runtime.actors.meeting import Meeting
from runtime.devices.contract import Program, StepKey

Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Phases:
    """How a fused launch went.

    Attributes:
        updated: Whether the update was done (False: another device has failed).
        compute_seconds: Until the gradients were there.
        update_seconds: From the meeting to the end.
    """

    updated: bool
    compute_seconds: float
    update_seconds: float


class Fused(Protocol):
    """A training program and an update program, ready to run as one."""

    def launch(
        self,
        inputs: Mapping[str, Array],
        slot: int,
        key: StepKey,
        meeting: Meeting,
    ) -> Phases:
        """Write the inputs, run step, meeting, commit and update, and wait for them.

        Raises what writing the inputs raises; then it has not come to the meeting.
        """
        ...


@runtime_checkable
class Fusing(Protocol):
    """A program for training that can be fused with an update."""

    def can_fuse(self, update: Program, parties: int) -> bool:
        """Whether it can, where so many come to the meeting."""
        ...

    def fuse(self, update: Program) -> Fused:
        """Make one of both; `can_fuse` has said yes."""
        ...


def fusing(training: object) -> Fusing | None:
    """The program as one that can be fused; None if it is not such a program."""
    return training if isinstance(training, Fusing) else None
