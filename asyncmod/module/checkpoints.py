"""What the training loop asks of checkpoints, and the answers where there are none.

Next: `asyncmod.module.checkpointing`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, Self

from asyncmod.history import History
from asyncmod.io.iterator import BatchIterator

if TYPE_CHECKING:
    from asyncmod.module.base import BaseModule
    from asyncmod.module.metrics import Metric

Values = Sequence[tuple[str, float]]


@dataclass
class Spent:
    """What an epoch has used so far, as the training task saw it.

    Attributes:
        samples: Rows that were trained on.
        seconds: All in all.
        data: Seconds of waiting for the iterator.
        compute: Seconds of forward and backward, on the slowest device.
        reduce: Seconds of summing gradients and updating, on the slowest device.
        metric: Seconds of the metric and batch callbacks.
    """

    samples: int = 0
    seconds: float = 0.0
    data: float = 0.0
    compute: float = 0.0
    reduce: float = 0.0
    metric: float = 0.0


@dataclass(frozen=True)
class Position:
    """A place between two steps.

    Attributes:
        epoch: The epoch to go on with.
        batch: Batches of it that have been applied.
        step: Batches of all epochs that have been applied.
        stopped_by: Why training was stopped here for good; None if it was not.
        spent: What the epoch has used before.
    """

    epoch: int = 0
    batch: int = 0
    step: int = 0
    stopped_by: str | None = None
    spent: Spent = field(default_factory=Spent, compare=False)


@dataclass(frozen=True)
class Subjects:
    """What has a state.

    Attributes:
        module: The module, bound, with its optimizer.
        batches: The training data.
        metric: The training metric.
        evaluation: The evaluation data, or None.
        callbacks: All callbacks; what has `get_state` and `set_state` counts of these
            and of `evaluation`.
        history: What is recorded.
    """

    module: BaseModule
    batches: BatchIterator
    metric: Metric
    evaluation: Any
    callbacks: Sequence[Any]
    history: History


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


NEVER = nullcontext[Callable[[], bool]](lambda: False)
"""What is never interrupted."""


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
        return NEVER

    def metric_state(self) -> Any:
        """None."""
        return None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        return None
