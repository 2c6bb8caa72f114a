"""History: what `fit` saw, row by row."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

Row = dict[str, Any]


@dataclass
class History:
    """Rows of numbers that `fit` collects and returns.

    Attributes:
        epochs: One dict per epoch, in order.
        batches: One dict per batch, in order.
        stopped_by: Why training ended before `num_epoch`; None if it did not.
        timing: Seconds over all epochs: `data` waiting for the iterator, `compute` and
            `reduce` on the slowest device, `metric` with its callbacks.
    """

    epochs: list[Row] = field(default_factory=list)
    batches: list[Row] = field(default_factory=list)
    stopped_by: str | None = None
    timing: dict[str, float] = field(default_factory=dict)

    def add_epoch(self, **values: Any) -> None:
        """Append a row to `epochs`."""
        self.epochs.append(values)

    def add_batch(self, **values: Any) -> None:
        """Append a row to `batches`."""
        self.batches.append(values)

    def to_dict(self) -> dict[str, list[Any]]:
        """The epochs by column: one list per key, None where an epoch lacks it."""
        keys = dict.fromkeys(key for row in self.epochs for key in row)
        return {key: [row.get(key) for row in self.epochs] for key in keys}
