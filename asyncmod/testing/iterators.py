"""The contract suite for data iterators: `await check_iterator(make)`."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import msgpack
import numpy as np
import trio

from asyncmod.io.batch import DataBatch
from asyncmod.io.iterator import BatchIterator, State

Make = Callable[[], AbstractAsyncContextManager[BatchIterator]]
Step = tuple[str, Any]
"""("next", a batch's contents or None at the end) or ("reset", None)."""


async def check_iterator(make: Make, *, epochs: int = 2) -> None:
    """Check that what `make` makes keeps the contract of BatchIterator.

    Descriptions fit the batches; the end is raised again and again; states are plain
    data, and a fresh or a used iterator given one goes on exactly as the first would
    have; a cancelled `next` loses nothing; closing may be repeated. The time grows
    with the square of the number of batches: use few.

    Args:
        make: Makes a fresh iterator, the same at every call, to be entered.
        epochs: Epochs to run.

    Raises:
        AssertionError: the contract is broken.
    """
    async with make() as iterator:
        steps = await _run(iterator, epochs)
    assert any(contents is not None for _, contents in steps), "there are no batches"
    await _check_descriptions(make, steps)
    await _check_states(make, steps)
    await _check_cancellation(make, steps)
    await _check_closing(make)


async def _run(iterator: BatchIterator, epochs: int) -> list[Step]:
    """Run whole epochs, asking each time twice for the end."""
    steps: list[Step] = []
    for epoch in range(epochs):
        if epoch:
            await iterator.reset()
            steps.append(("reset", None))
        ends = 0
        while ends < 2:
            contents = await _next(iterator)
            assert contents is None or not ends, "a batch came after the epoch's end"
            ends += contents is None
            steps.append(("next", contents))
    return steps


async def _check_descriptions(make: Make, steps: list[Step]) -> None:
    async with make() as iterator:
        data, label = list(iterator.provide_data), list(iterator.provide_label)
        assert iterator.batch_size > 0, "batch_size must be positive"
    for _, contents in steps:
        if contents is None or contents["described"]:
            continue
        for descriptions, arrays in ((data, "data"), (label, "label")):
            got = [array.shape for array in contents[arrays]]
            expected = [tuple(description[1]) for description in descriptions]
            assert got == expected, f"{arrays} shapes {got}, described as {expected}"


async def _check_states(make: Make, steps: list[Step]) -> None:
    """Taking states changes nothing, and every state leads to the same rest."""
    states = []
    async with make() as iterator:
        for position, step in enumerate(steps):
            states.append(_through_msgpack(iterator.get_state()))
            await _expect(iterator, step, f"with states taken, at step {position}")
    for position, state in enumerate(states):
        for used in (False, True):
            async with make() as iterator:
                if used:
                    await _next(iterator)
                iterator.set_state(state)
                assert _through_msgpack(iterator.get_state()) == state, (
                    "get_state after set_state gives another state"
                )
                for later, step in enumerate(steps[position:], position):
                    where = f"continued from step {position}, at step {later}"
                    await _expect(iterator, step, where)


async def _check_cancellation(make: Make, steps: list[Step]) -> None:
    """Cancel each `next` after 0, 1, 2 and 3 turns of the scheduler, then go on."""
    for turns in range(4):
        async with make() as iterator:
            for position, step in enumerate(steps):
                delivered = None
                if step[0] == "next":
                    delivered = await _cancelled_next(iterator, turns)
                where = f"after cancelling, at step {position}"
                if delivered is None:
                    await _expect(iterator, step, where)
                else:
                    _compare(delivered[0], step[1], where)


async def _cancelled_next(iterator: BatchIterator, turns: int) -> list[Any] | None:
    """Cancel a `next` after some turns; what it delivered, or None if nothing."""
    delivered: list[Any] = []

    async def take() -> None:
        delivered.append(await _next(iterator))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(take)
        for _ in range(turns):
            await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel()
    return delivered or None


async def _check_closing(make: Make) -> None:
    for reads in (0, 1):
        async with make() as iterator:
            for _ in range(reads):
                await _next(iterator)
            await iterator.aclose()
            await iterator.aclose()


async def _expect(iterator: BatchIterator, step: Step, where: str) -> None:
    action, expected = step
    if action == "reset":
        await iterator.reset()
    else:
        _compare(await _next(iterator), expected, where)


async def _next(iterator: BatchIterator) -> Any:
    """A batch's contents, or None at the end."""
    try:
        return _contents(await iterator.next())
    except StopAsyncIteration:
        return None


def _contents(batch: DataBatch) -> dict[str, Any]:
    return {
        "data": [_dense(array) for array in batch.data],
        "label": [_dense(array) for array in getattr(batch, "label", None) or []],
        "pad": getattr(batch, "pad", None),
        "index": np.array(getattr(batch, "index", None)).tolist(),
        "bucket_key": getattr(batch, "bucket_key", None),
        "described": getattr(batch, "provide_data", None) is not None,
    }


def _dense(array: Any) -> Any:
    """A copy as a NumPy array, of sparse data too."""
    return array.toarray() if hasattr(array, "toarray") else np.array(array)


def _compare(got: Any, expected: Any, where: str) -> None:
    assert (got is None) == (expected is None), f"the end came at another time, {where}"
    if expected is None:
        return
    for field, values in expected.items():
        if field in ("data", "label"):
            assert len(got[field]) == len(values), f"{field} differ in number, {where}"
            for one, other in zip(got[field], values, strict=True):
                np.testing.assert_array_equal(one, other, f"{field} differ, {where}")
        else:
            assert got[field] == values, (
                f"{field} is {got[field]}, not {values}, {where}"
            )


def _through_msgpack(state: State) -> State:
    result: State = msgpack.unpackb(msgpack.packb(state))
    return result
