"""A training step and its update in one launch, for devices that can do that.

Without it a device thread comes back from the gradients to Python, meets the others and
goes out again; with several threads each such return waits for the interpreter lock.

Where all devices' work is short, their steps are joined into one launch instead, on the
Trio thread.

Next: `runtime.devices.cpu.fused` and `runtime.devices.cpu.joined`, the implementations.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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


class Joined(Protocol):
    """Training steps and updates of several devices, ready to run as one."""

    def launch(self, keys: Sequence[StepKey]) -> None:
        """Run all steps, then all commits and updates, in the first slot."""
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


@runtime_checkable
class Joining(Protocol):
    """A program for training whose step can be joined with other devices'."""

    def join(self, steps: Sequence[tuple[Program, Program]]) -> Joined | None:
        """One of all training programs and updates given; None if that cannot be.

        Args:
            steps: A training program and an update per device, this one's included.
        """
        ...


def fusing(training: object) -> Fusing | None:
    """The program as one that can be fused; None if it is not such a program."""
    return training if isinstance(training, Fusing) else None


def joining(training: object) -> Joining | None:
    """The program as one that can be joined; None if it is not such a program."""
    return training if isinstance(training, Joining) else None
