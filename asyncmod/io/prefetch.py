"""PrefetchingIter: other iterators read ahead while the consumer computes.

Every inner iterator has a lane, a background task with a bounded queue. The
consumer takes the heads of all lanes at once, so that a cancelled `next` takes
none. With each batch travels the inner iterator's state after it; what was read
ahead but not delivered therefore never counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AsyncExitStack
from operator import length_hint
from types import TracebackType
from typing import Any, Self

import trio

from asyncmod.io.adapter import as_async
from asyncmod.io.background import BackgroundTasks, current_background
from asyncmod.io.batch import BatchError, DataBatch
from asyncmod.io.iterator import BatchIterator, DataIter, IteratorError, State
from asyncmod.io.join import Rename, check_rename, join_batches, join_descriptions
from asyncmod.io.lane import Item, Lane
from asyncmod.trio_task import check_trio
from runtime.actors import Runtime
from runtime.errors import ClosedError


class PrefetchingIter(DataIter):
    """Reads one or several iterators ahead and joins their batches.

    Its background tasks live in `async with PrefetchingIter(...) as iterator:`, or
    else in the runtime that is open; they start with the first `next`. Errors of an
    inner iterator arrive at the consumer after the batches before them. The pad,
    index and bucket key of a joined batch are the first iterator's.

    Args:
        iters: One iterator or a list; anything that `as_async` takes. A synchronous
            one is read in a thread.
        rename_data: One dict per iterator, from its data names to new ones.
        rename_label: Likewise for labels.
        depth: How many batches each inner iterator may be ahead.
        copy: Copy each batch's arrays; needed only if an inner iterator fills the
            same arrays again for its next batch.

    Raises:
        ValueError: no iterators, a depth below 1, a rename list of another length.
    """

    def __init__(
        self,
        iters: Any,
        rename_data: Rename = None,
        rename_label: Rename = None,
        *,
        depth: int = 2,
        copy: bool = False,
    ) -> None:
        sources = list(iters) if isinstance(iters, list | tuple) else [iters]
        if not sources:
            raise ValueError("`iters` must hold at least one iterator")
        if depth < 1:
            raise ValueError(f"`depth` must be at least 1, not {depth}")
        check_rename("rename_data", rename_data, len(sources))
        check_rename("rename_label", rename_label, len(sources))
        self.iters: list[BatchIterator] = [as_async(source) for source in sources]
        super().__init__(self.iters[0].batch_size)
        self.provide_data = join_descriptions(
            [inner.provide_data for inner in self.iters], rename_data
        )
        self.provide_label = join_descriptions(
            [inner.provide_label for inner in self.iters], rename_label
        )
        self._rename = (rename_data, rename_label)
        self._depth = depth
        self._copy = copy
        self._lanes: list[Lane] = []
        self._stale = False  # the inner iterators are not where `_states` says
        self._states: list[State] | None = None  # after the last batch delivered
        self._at_end = False
        self._failure: Exception | None = None
        self._closed = False
        self._changing = trio.Lock()
        self._nursery: BackgroundTasks | None = None
        self._runtime: Runtime | None = None
        self._leave = AsyncExitStack()

    @property
    def default_bucket_key(self) -> Any:
        """The first inner iterator's."""
        return getattr(self.iters[0], "default_bucket_key", None)

    def __length_hint__(self) -> int:
        """About how many batches an epoch has; 0 if the iterators do not say."""
        return min(length_hint(inner, 0) for inner in self.iters)

    async def next(self) -> DataBatch:
        """The next joined batch; StopAsyncIteration at the end. Cancelling loses none.

        Raises:
            IteratorError: the inner iterators do not end together, or no runtime is
                open and the iterator was not entered.
            BatchError: their batches have different pads.
            Exception: whatever an inner iterator raised.
        """
        check_trio("an iterator")
        await trio.lowlevel.checkpoint_if_cancelled()
        while True:
            self._check_usable()
            if not self._lanes or self._stale:
                await self._start()
                continue
            empty = next((lane for lane in self._lanes if not lane.items), None)
            if empty is None:
                return self._deliver([lane.take() for lane in self._lanes])
            await empty.wait()

    async def reset(self) -> None:
        """Begin the next epoch, also in the middle of one.

        Batches read ahead are dropped, and do not count. A cancelled reset has not
        taken place.
        """
        self._check_open()
        async with self._changing:
            await self._stop()
            self._put_back()
            self._states = self._states or [inner.get_state() for inner in self.iters]
            self._stale = True
            for inner in self.iters:
                await inner.reset()
            self._states, self._stale = None, False
            self._at_end, self._failure = False, None

    def get_state(self) -> State:
        """The inner iterators' states after the last batch delivered."""
        states = self._states
        if states is None:
            states = [inner.get_state() for inner in self.iters]
        return {"iterators": states, "at_end": self._at_end}

    def set_state(self, state: State) -> None:
        """Continue from `state`, from the following `next` or `reset` on.

        Raises:
            ValueError: the state is of another number of iterators.
        """
        if len(state["iterators"]) != len(self.iters):
            raise ValueError(
                f"the state is of {len(state['iterators'])} iterators, and there are "
                f"{len(self.iters)}"
            )
        self._states, self._stale = list(state["iterators"]), True
        self._at_end, self._failure = state["at_end"], None
        for lane in self._lanes:
            lane.stop()

    async def aclose(self) -> None:
        """Stop the background tasks and close the inner iterators; may be repeated."""
        self._closed = True
        if self._runtime is not None:
            self._runtime.unregister(self)
        with trio.CancelScope(shield=True):
            await self._stop()
        async with AsyncExitStack() as stack:
            for inner in self.iters:
                stack.push_async_callback(inner.aclose)

    async def __aenter__(self) -> Self:
        manager = trio.open_nursery()
        self._nursery = await manager.__aenter__()
        # The nursery is not told what the block raises: no task of it needs to know,
        # and so the error stays bare instead of in an exception group.
        self._leave.push_async_callback(manager.__aexit__, None, None, None)
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            await self.aclose()
        finally:
            self._nursery = None
            await self._leave.aclose()

    def _check_open(self) -> None:
        if self._closed:
            raise ClosedError("this PrefetchingIter is closed: make another one")

    def _check_usable(self) -> None:
        self._check_open()
        if self._failure is not None:
            raise IteratorError(
                "an inner iterator has failed (see the error above): call "
                "`await iterator.reset()` to begin the next epoch"
            ) from self._failure
        if self._at_end:
            raise StopAsyncIteration

    async def _start(self) -> None:
        """Start a lane per iterator, from the last batch delivered."""
        background = self._nursery or self._register()
        if background is None:
            raise IteratorError(
                "PrefetchingIter reads ahead in background tasks, and there is no "
                "place for them: write `async with PrefetchingIter(...) as iterator:`, "
                "or run the program by `mx.run(main)`"
            )
        async with self._changing:
            if self._lanes and not self._stale:
                return
            await self._stop()
            self._put_back()
            self._states = [inner.get_state() for inner in self.iters]
            self._lanes = [Lane(it, self._depth, self._copy) for it in self.iters]
            for lane in self._lanes:
                background.start_soon(lane.fill)

    def _register(self) -> BackgroundTasks | None:
        """The open runtime, which from now on closes this iterator at its end."""
        self._runtime = current_background()
        if self._runtime is not None:
            self._runtime.register(self)
        return self._runtime

    async def _stop(self) -> None:
        """Stop the lanes and wait until none of them touches its iterator."""
        if not self._lanes:
            return
        self._stale = True
        for lane in self._lanes:
            lane.stop()
        for lane in self._lanes:
            await lane.finished()
        self._lanes = []

    def _put_back(self) -> None:
        """Bring the inner iterators to where the consumer is."""
        if self._stale and self._states is not None:
            for inner, state in zip(self.iters, self._states, strict=True):
                inner.set_state(state)
        self._stale = False

    def _deliver(self, items: Sequence[Item]) -> DataBatch:
        for item in items:
            if item.error is not None:
                self._failure = item.error
                raise item.error
        self._states = [item.state for item in items]
        batches = [item.batch for item in items if item.batch is not None]
        if not batches:
            self._at_end = True
            raise StopAsyncIteration
        try:
            if len(batches) < len(items):
                raise _ends_differ(items)
            return join_batches(batches, *self._rename)
        except (IteratorError, BatchError) as error:
            self._failure = error
            raise


def _ends_differ(items: Sequence[Item]) -> IteratorError:
    ended = [i for i, item in enumerate(items) if item.batch is None]
    return IteratorError(
        f"inner iterators {ended} ended while the others had another batch: give all "
        "the same number of batches, for example by ResizeIter"
    )
