"""A step under way: what the fit and score loops see of a module's work."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Protocol

from numpy.typing import NDArray

Array = NDArray[Any]


class Step(Protocol):
    """One batch that a module has begun to work on; `Pending` of the executors.

    Attributes:
        compute_seconds: What the slowest device computed, once the step is complete.
        reduce_seconds: What summing gradients and updating took.
    """

    @property
    def compute_seconds(self) -> float: ...
    @property
    def reduce_seconds(self) -> float: ...

    async def copied(self) -> None:
        """Return when the batch's arrays may be overwritten."""
        ...

    async def wait(self) -> None:
        """Return when the step is complete; raise what went wrong in it."""
        ...

    async def outputs(self) -> list[Array]:
        """Wait, then return the merged outputs of the whole batch."""
        ...

    async def settle(self) -> bool:
        """Withdraw the step, or wait for its end; neither raises nor is cancelled."""
        ...


@dataclass
class CompletedStep:
    """A step of a module that does not pipeline: complete when it is made."""

    read_outputs: Callable[[], Awaitable[list[Array]]]
    compute_seconds: float = 0.0
    reduce_seconds: float = 0.0

    async def copied(self) -> None:
        """Nothing to wait for."""

    async def wait(self) -> None:
        """Nothing to wait for."""

    async def outputs(self) -> list[Array]:
        """The module's outputs; read them before its next forward."""
        return await self.read_outputs()

    async def settle(self) -> bool:
        """Nothing to wait for; the step took effect."""
        return True
