"""ResizeIter: epochs of a chosen length over another iterator."""

from __future__ import annotations

from typing import Any

from asyncmod.io.adapter import as_async
from asyncmod.io.batch import DataBatch
from asyncmod.io.iterator import DataIter, State


class ResizeIter(DataIter):
    """Exactly `size` batches per epoch; the inner iterator starts anew as needed.

    Args:
        data_iter: Any iterator that `as_async` takes.
        size: Batches per epoch.
        reset_internal: Whether `reset` also resets the inner iterator; otherwise its
            position carries over from epoch to epoch.
    """

    def __init__(self, data_iter: Any, size: int, reset_internal: bool = True) -> None:
        self._inner = as_async(data_iter)
        super().__init__(self._inner.batch_size)
        if size < 0:
            raise ValueError(f"`size` must not be negative, and it is {size}")
        self.size = size
        self.reset_internal = reset_internal
        self.provide_data = self._inner.provide_data
        self.provide_label = self._inner.provide_label
        self._count = 0

    @property
    def default_bucket_key(self) -> Any:
        """The inner iterator's."""
        return getattr(self._inner, "default_bucket_key", None)

    async def next(self) -> DataBatch:
        """The next batch, from the inner iterator's next epoch if need be.

        Raises:
            ValueError: the inner iterator has no batch at all.
        """
        if self._count >= self.size:
            raise StopAsyncIteration
        try:
            batch = await self._inner.next()
        except StopAsyncIteration:
            await self._inner.reset()
            batch = await self._first_of_epoch()
        self._count += 1
        return batch

    def __length_hint__(self) -> int:
        """How many batches an epoch has; for displays of progress."""
        return self.size

    async def reset(self) -> None:
        """Begin the next epoch."""
        if self.reset_internal:
            await self._inner.reset()
        self._count = 0

    def get_state(self) -> State:
        """The count of batches and the inner iterator's state."""
        return {"count": self._count, "inner": self._inner.get_state()}

    def set_state(self, state: State) -> None:
        """Continue from `state`."""
        self._count = state["count"]
        self._inner.set_state(state["inner"])

    async def aclose(self) -> None:
        """Close the inner iterator."""
        await self._inner.aclose()

    async def _first_of_epoch(self) -> DataBatch:
        try:
            return await self._inner.next()
        except StopAsyncIteration:
            raise ValueError(
                f"ResizeIter cannot make {self.size} batches of an iterator without any"
            ) from None
