"""Whatever is done to a PrefetchingIter, it behaves as its inner iterator would."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import trio
from hypothesis import given
from hypothesis import strategies as st

from asyncmod import io

ACTIONS = ("next", "next", "next", "cancelled", "reset", "save", "restore", "wait")


def make(rows: int, size: int, handle: Any, shuffle: bool) -> io.NDArrayIter:
    return io.NDArrayIter(np.arange(rows), None, size, shuffle, handle, seed=7)


async def perform(iterator: Any, actions: Sequence[str], turns: int) -> list[Any]:
    """What each action shows: rows, the end, or a state."""
    seen: list[Any] = []
    saved: Any = iterator.get_state()
    for action in actions:
        if action == "next":
            seen.append(await take(iterator))
        elif action == "cancelled":
            async with trio.open_nursery() as nursery:
                taken: list[Any] = []
                nursery.start_soon(keep, iterator, taken)
                for _ in range(turns):
                    await trio.lowlevel.checkpoint()
                nursery.cancel_scope.cancel()
            # Delivered in spite of the cancellation, or still to come.
            seen.append(taken[0] if taken else await take(iterator))
        elif action == "reset":
            await iterator.reset()
        elif action == "save":
            saved = iterator.get_state()
        elif action == "restore":
            iterator.set_state(saved)
        else:
            for _ in range(turns):
                await trio.lowlevel.checkpoint()
    return seen


async def keep(iterator: Any, taken: list[Any]) -> None:
    taken.append(await take(iterator))


async def take(iterator: Any) -> Any:
    try:
        batch = await iterator.next()
    except StopAsyncIteration:
        return "end"
    return [array.tolist() for array in batch.data], batch.pad


@given(
    rows=st.integers(3, 9),
    size=st.integers(1, 4),
    handle=st.sampled_from(["pad", "discard", "roll_over"]),
    shuffle=st.booleans(),
    depth=st.integers(1, 4),
    turns=st.integers(0, 5),
    actions=st.lists(st.sampled_from(ACTIONS), min_size=15, max_size=40),
)
def test_same_as_without_prefetching(
    rows: int,
    size: int,
    handle: Any,
    shuffle: bool,
    depth: int,
    turns: int,
    actions: list[str],
) -> None:
    options = (rows, size, handle, shuffle)

    async def main() -> None:
        expected = await perform(make(*options), actions, turns)
        async with io.PrefetchingIter(make(*options), depth=depth) as iterator:
            assert await perform(iterator, actions, turns) == expected
        pair = [make(*options), make(*options)]
        async with io.PrefetchingIter(pair, depth=depth) as iterator:
            twice = [end if end == "end" else (end[0] * 2, end[1]) for end in expected]
            assert await perform(iterator, actions, turns) == twice

    trio.run(main)
