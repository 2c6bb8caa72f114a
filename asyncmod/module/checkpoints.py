"""What the training loop asks of checkpoints, and the answers where there are none.

Next: `asyncmod.module.checkpointing`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, Self

from asyncmod.io.iterator import BatchIterator

if TYPE_CHECKING:
    from asyncmod.module.base import BaseModule
    from asyncmod.module.metrics import Metric

Values = Sequence[tuple[str, float]]


@dataclass(frozen=True)
class Position:
    """A place between two steps.

    Attributes:
        epoch: The epoch to go on with.
        batch: Batches of it that have been applied.
        step: Batches of all epochs that have been applied.
        stopped_by: Why training was stopped here for good; None if it was not.
    """

    epoch: int = 0
    batch: int = 0
    step: int = 0
    stopped_by: str | None = None


@dataclass(frozen=True)
class Subjects:
    """What has a state.

    Attributes:
        module: The module, bound, with its optimizer.
        batches: The training data.
        metric: The training metric.
        callbacks: All callbacks; those that have `get_state` and `set_state` count.
    """

    module: BaseModule
    batches: BatchIterator
    metric: Metric
    callbacks: Sequence[Any]


class Checkpoints(Protocol):
    """What the training loop asks; `Saving` or `NoCheckpoints`."""

    async def begin(self, subjects: Subjects, position: Position) -> Position:
        """Put the state back, if there is one; where training begins."""
        ...

    def is_due(self, step: int) -> bool:
        """Whether to save when this step is complete; raises what went wrong before."""
        ...

    async def save(self, position: Position) -> None:
        """Save, with nothing in flight; raises if training must end here."""
        ...

    async def end_epoch(self, position: Position, values: Values) -> None:
        """Save after an epoch, if it is time."""
        ...

    async def end(self, position: Position) -> None:
        """Save at the end of training, unless it has just been done."""
        ...

    def interruptible(self) -> AbstractContextManager[Callable[[], bool]]:
        """Cancels its body when training must end; gives what says whether it did."""
        ...

    def metric_state(self) -> Any:
        """The metric's state in the first epoch, once; None if there is none."""
        ...


class NoCheckpoints:
    """Nothing is saved."""

    async def begin(self, subjects: Subjects, position: Position) -> Position:
        """Begin where it was said."""
        return position

    def is_due(self, step: int) -> bool:
        """Never."""
        return False

    async def save(self, position: Position) -> None:
        """Nothing."""

    async def end_epoch(self, position: Position, values: Values) -> None:
        """Nothing."""

    async def end(self, position: Position) -> None:
        """Nothing."""

    def interruptible(self) -> AbstractContextManager[Callable[[], bool]]:
        """Never cancelled."""
        return nullcontext(lambda: False)

    def metric_state(self) -> Any:
        """None."""
        return None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        return None
