"""`as_async` over all kinds of sources."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import pytest
import structlog
import trio
import trio.testing

from asyncmod import io

DESCRIBED = {"provide_data": [io.DataDesc("data", (2,))], "batch_size": 2}


class Parts(io.DataIter):
    """MXNet's `iter_next` style."""

    def __init__(self) -> None:
        super().__init__(2)
        self.provide_data = [io.DataDesc("data", (2,))]
        self.position = -1

    def iter_next(self) -> bool:
        self.position += 1
        return self.position < 3

    def getdata(self) -> Any:
        return [np.full(2, self.position)]

    def getlabel(self) -> Any:
        return [np.full(2, -self.position)]

    def getpad(self) -> int:
        return 1

    def reset(self) -> None:
        self.position = -1


class Next:
    """Only `next` and `reset`, neither of them Python's."""

    batch_size = 2
    provide_data = (io.DataDesc("data", (2,)),)

    def __init__(self) -> None:
        self.position = 0

    def next(self) -> io.DataBatch:
        if self.position == 3:
            raise StopIteration
        self.position += 1
        return io.DataBatch([np.full(2, self.position - 1)])

    def reset(self) -> None:
        self.position = 0


class Stateless(io.DataIter):
    """An asynchronous iterator of the user's without states."""

    def __init__(self) -> None:
        super().__init__(2)
        self.provide_data = [io.DataDesc("data", (2,))]
        self.position = 0

    async def next(self) -> io.DataBatch:
        await trio.lowlevel.checkpoint()
        if self.position == 3:
            raise StopAsyncIteration
        self.position += 1
        return io.DataBatch([np.full(2, self.position - 1)])

    async def reset(self) -> None:
        self.position = 0


async def generate() -> AsyncIterator[Any]:
    for i in range(3):
        await trio.lowlevel.checkpoint()
        yield np.full(2, i)


def described(source: Any) -> io.BatchIterator:
    return io.as_async(source, **DESCRIBED)  # type: ignore[arg-type]


async def firsts(iterator: Any) -> list[int]:
    return [int(batch.data[0][0]) async for batch in iterator]


@pytest.mark.parametrize("make", [Parts, Next, Stateless])
async def test_two_epochs(make: Any) -> None:
    async with io.as_async(make()) as iterator:  # type: ignore[attr-defined]
        assert iterator.batch_size == 2
        assert await firsts(iterator) == [0, 1, 2]
        with pytest.raises(StopAsyncIteration):
            await iterator.next()
        await iterator.reset()
        assert await firsts(iterator) == [0, 1, 2]


async def test_parts_are_put_together() -> None:
    async for batch in Parts():
        assert batch.label[0].tolist() == (-batch.data[0]).tolist()
        assert batch.pad == 1


def test_a_source_that_keeps_the_contract_is_returned() -> None:
    iterator = io.NDArrayIter(np.zeros((4, 2)))
    assert io.as_async(iterator) is iterator
    adapted = described([])
    assert io.as_async(adapted) is adapted


@pytest.mark.parametrize(
    ("item", "data", "label"),
    [
        (np.zeros(2), 1, None),
        ((np.zeros(2), np.ones(2)), 1, 1),
        (([np.zeros(2), np.zeros(2)], [np.ones(2)]), 2, 1),
        ((np.zeros(2), None), 1, None),
    ],
)
async def test_items_become_batches(item: Any, data: int, label: int | None) -> None:
    batch = await described([item]).next()
    assert len(batch.data) == data
    assert (None if batch.label is None else len(batch.label)) == label


async def test_an_item_that_is_no_batch_is_named() -> None:
    with pytest.raises(io.IteratorError, match="yielded a str"):
        await described(["abc"]).next()


async def test_a_generator_is_read_once() -> None:
    iterator = described(np.full(2, i) for i in range(3))
    assert await firsts(iterator) == [0, 1, 2]
    await iterator.reset()  # as fit does after the last epoch
    with pytest.raises(io.IteratorError, match="only once"):
        await iterator.next()


async def test_an_async_generator() -> None:
    iterator = described(generate())
    assert await firsts(iterator) == [0, 1, 2]
    await iterator.reset()
    with pytest.raises(io.IteratorError, match="only once"):
        await iterator.next()


async def test_tasks_that_ask_at_once_get_their_turns() -> None:
    class Slow:
        async def __aiter__(self) -> AsyncIterator[Any]:
            for i in range(4):
                await trio.testing.wait_all_tasks_blocked()
                yield np.full(2, i)

    iterator = described(Slow())
    got: list[int] = []

    async def ask() -> None:
        got.append(int((await iterator.next()).data[0][0]))

    async with trio.open_nursery() as nursery:
        for _ in range(4):
            nursery.start_soon(ask)
    assert got == [0, 1, 2, 3]
    await iterator.aclose()


async def test_an_async_generator_cancelled_is_no_end() -> None:
    iterator = described(generate())
    await iterator.next()
    with trio.CancelScope() as scope:
        scope.cancel()
        await iterator.next()
    assert await firsts(iterator) == [1, 2]  # cancelled before it was asked

    class Waiting:
        async def __aiter__(self) -> AsyncIterator[Any]:
            yield np.zeros(2)
            await trio.sleep_forever()

    iterator = described(Waiting())
    await iterator.next()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(iterator.next)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    with pytest.raises(io.IteratorError, match="was cancelled"):
        await iterator.next()
    await iterator.reset()
    await iterator.next()
    await iterator.aclose()


async def test_a_source_without_states_is_read_up_to_the_position() -> None:
    first = io.as_async(Next())
    await first.next()
    await first.next()
    second = io.as_async(Next())
    second.set_state(first.get_state())
    with structlog.testing.capture_logs() as logs:
        assert await firsts(second) == [2]
    assert "2 batches" in logs[0]["event"]
    third = described([np.zeros(2)])
    third.set_state({"delivered": 2, "at_end": False})
    with (
        structlog.testing.capture_logs(),
        pytest.raises(io.IteratorError, match="ended 1 batches before"),
    ):
        await third.next()


async def test_errors_of_reset_are_raised() -> None:
    class Broken(Next):
        def reset(self) -> None:
            raise LookupError("no second epoch")

    with pytest.raises(LookupError, match="no second epoch"):
        await io.as_async(Broken()).reset()


async def test_a_reset_cancelled_in_its_thread_is_not_read_as_a_batch() -> None:
    gate = threading.Event()

    class Slow(Next):
        def reset(self) -> None:
            gate.wait()
            super().reset()

    iterator = io.as_async(Slow())
    assert await firsts(iterator) == [0, 1, 2]
    for _ in range(2):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(iterator.reset)
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
    gate.set()
    await iterator.reset()
    assert await firsts(iterator) == [0, 1, 2]


async def test_a_source_is_not_read_while_a_cancelled_reset_runs() -> None:
    gate = threading.Event()

    class Slow(Next):
        resetting = False

        def next(self) -> io.DataBatch:
            assert not self.resetting
            return super().next()

        def reset(self) -> None:
            self.resetting = True
            gate.wait()
            super().reset()
            self.resetting = False

    iterator = io.as_async(Slow())
    await iterator.next()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(iterator.reset)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(iterator.next)
        await trio.testing.wait_all_tasks_blocked()
        gate.set()
    assert await firsts(iterator) == [1, 2]


async def test_missing_descriptions_are_asked_for() -> None:
    with pytest.raises(io.IteratorError, match="provide_data"):
        _ = io.as_async([np.zeros(2)]).provide_data
    assert described([]).provide_label == []


async def test_an_exception_in_the_thread_arrives() -> None:
    def read() -> Any:
        yield np.zeros(2)
        raise LookupError("row 7")

    iterator = described(read())
    await iterator.next()
    with pytest.raises(LookupError, match="row 7"):
        await iterator.next()


def test_what_is_no_source() -> None:
    with pytest.raises(TypeError, match="int is no iterator"):
        io.as_async(3)


async def test_a_base_class_without_next_says_what_to_define() -> None:
    with pytest.raises(NotImplementedError, match="async def next"):
        await io.DataIter().next()


def test_an_iterator_of_whole_batches_says_what_stands_for_iter_next() -> None:
    with pytest.raises(NotImplementedError, match=r"await iterator\.next"):
        io.NDArrayIter(np.zeros((4, 2))).iter_next()


async def test_the_old_style_can_be_awaited_as_it_is() -> None:
    source = Parts()
    batches = [await source.next() for _ in range(3)]
    assert [float(batch.data[0][0]) for batch in batches] == [0.0, 1.0, 2.0]
    with pytest.raises(StopAsyncIteration):
        await source.next()
