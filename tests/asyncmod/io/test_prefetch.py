"""PrefetchingIter: order of errors, bounds, resets, cancellation, what is left."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest
import structlog
import trio
import trio.testing

from asyncmod import io
from runtime.actors import open_runtime
from runtime.errors import ClosedError


class Source(io.DataIter):
    """`count` batches of one number each; may fail at one of them."""

    def __init__(self, count: int = 6, fail_at: int | None = None) -> None:
        super().__init__(1)
        self.provide_data = [io.DataDesc("data", (1,))]
        self.count = count
        self.fail_at = fail_at
        self.position = 0
        self.closed = False

    async def next(self) -> io.DataBatch:
        await trio.lowlevel.checkpoint()
        if self.position == self.fail_at:
            raise ArithmeticError(f"batch {self.position} is bad")
        if self.position == self.count:
            raise StopAsyncIteration
        self.position += 1
        return self.batch(self.position - 1)

    def batch(self, number: int) -> io.DataBatch:
        return io.DataBatch([np.array([number])], [], 0, bucket_key=10 * number)

    async def reset(self) -> None:
        await trio.lowlevel.checkpoint()
        self.position = 0

    def get_state(self) -> dict[str, Any]:
        return {"position": self.position}

    def set_state(self, state: dict[str, Any]) -> None:
        self.position = state["position"]

    async def aclose(self) -> None:
        self.closed = True


class Gated:
    """A synchronous source whose every batch waits for the gate."""

    provide_data = (io.DataDesc("data", (1,)),)
    batch_size = 1

    def __init__(self, count: int = 3) -> None:
        self.gate = threading.Semaphore(0)
        self.count = count
        self.threads: set[int] = set()

    def __iter__(self) -> Any:
        for number in range(self.count):
            self.gate.acquire()
            self.threads.add(threading.get_ident())
            yield np.array([number])


async def numbers(iterator: Any) -> list[int]:
    return [int(batch.data[0][0]) async for batch in iterator]


async def test_all_batches_in_order_and_with_their_bucket_keys() -> None:
    async with io.PrefetchingIter(Source()) as iterator:
        batches = [batch async for batch in iterator]
    assert [int(batch.data[0][0]) for batch in batches] == list(range(6))
    assert [batch.bucket_key for batch in batches] == [0, 10, 20, 30, 40, 50]


@pytest.mark.parametrize("synchronous", [False, True])
async def test_an_error_comes_after_the_batches_before_it(synchronous: bool) -> None:
    source: Any = Source(fail_at=3)
    if synchronous:

        def read() -> Any:
            yield from (np.array([i]) for i in range(3))
            raise ArithmeticError("batch 3 is bad")

        source = io.as_async(read(), provide_data=Source().provide_data, batch_size=1)
    async with io.PrefetchingIter(source, depth=5) as iterator:
        for expected in range(3):
            assert int((await iterator.next()).data[0][0]) == expected
        with pytest.raises(ArithmeticError, match="batch 3 is bad"):
            await iterator.next()
        with pytest.raises(io.IteratorError, match="has failed") as caught:
            await iterator.next()
        assert isinstance(caught.value.__cause__, ArithmeticError)


async def test_reset_after_an_error_begins_the_next_epoch() -> None:
    source = Source(fail_at=2)
    async with io.PrefetchingIter(source) as iterator:
        with pytest.raises(ArithmeticError):
            await numbers(iterator)
        source.fail_at = None
        await iterator.reset()
        assert await numbers(iterator) == list(range(6))


async def test_an_error_of_the_block_stays_bare() -> None:
    async def fail() -> None:
        async with io.PrefetchingIter(Source()) as iterator:
            await iterator.next()
            raise LookupError

    with pytest.raises(LookupError):
        await fail()


@pytest.mark.parametrize("depth", [1, 2, 4])
async def test_reads_ahead_to_the_depth_and_no_further(depth: int) -> None:
    source = Source()
    async with io.PrefetchingIter(source, depth=depth) as iterator:
        await iterator.next()
        await trio.testing.wait_all_tasks_blocked()
        assert source.position == 1 + depth
        await iterator.next()
        await trio.testing.wait_all_tasks_blocked()
        assert source.position == 2 + depth


async def test_the_state_counts_only_what_was_delivered() -> None:
    async with io.PrefetchingIter(Source(), depth=4) as iterator:
        await iterator.next()
        await iterator.next()
        await trio.testing.wait_all_tasks_blocked()
        assert iterator.get_state()["iterators"] == [{"position": 2}]


async def test_reset_in_the_middle() -> None:
    source = Source()
    async with io.PrefetchingIter(source, depth=3) as iterator:
        for taken in range(5):
            for expected in range(taken):
                assert int((await iterator.next()).data[0][0]) == expected
            await iterator.reset()
        assert await numbers(iterator) == list(range(6))


async def test_reset_in_the_middle_carries_no_rows_over() -> None:
    # The lane has seen the epoch's end and what rolls over; the consumer has not.
    data = np.arange(10.0)
    inner = io.NDArrayIter(data, batch_size=4, last_batch_handle="roll_over")
    async with io.PrefetchingIter(inner, depth=5) as iterator:
        await iterator.next()
        await trio.testing.wait_all_tasks_blocked()
        await iterator.reset()
        assert (await iterator.next()).data[0].tolist() == [0, 1, 2, 3]


async def test_a_cancelled_reset_has_not_taken_place() -> None:
    for turns in range(12):
        sources = [Source(), Source()]
        async with io.PrefetchingIter(sources, depth=3) as iterator:
            await iterator.next()
            await iterator.next()
            done = False

            async def reset(iterator: Any = iterator) -> None:
                nonlocal done
                await iterator.reset()
                done = True

            async with trio.open_nursery() as nursery:
                nursery.start_soon(reset)
                for _ in range(turns):
                    await trio.lowlevel.checkpoint()
                nursery.cancel_scope.cancel()
            assert await numbers(iterator) == list(range(0 if done else 2, 6))
    assert done


async def test_all_are_closed_although_one_fails_to() -> None:
    class Failing(Source):
        async def aclose(self) -> None:
            raise LookupError

    sources = [Source(), Failing(), Source()]
    with pytest.raises(LookupError):
        await io.PrefetchingIter(sources).aclose()
    assert [source.closed for source in sources] == [True, False, True]


async def test_the_runtime_forgets_an_iterator_that_was_closed() -> None:
    async with open_runtime() as runtime:
        iterator = io.PrefetchingIter(Source())
        await iterator.next()
        assert len(runtime._owned) == 1
        await iterator.aclose()
        assert len(runtime._owned) == 0


async def test_a_waiting_consumer_goes_on_after_set_state() -> None:
    source = Gated()
    async with io.PrefetchingIter(io.as_async(source)) as iterator:
        state = iterator.get_state()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(iterator.next)
            await trio.testing.wait_all_tasks_blocked()
            iterator.set_state(state)
            source.gate.release(2 + source.count)  # it reads ahead, too


async def test_iterators_that_end_at_different_times() -> None:
    sources = [Source(3), Source(5)]
    async with io.PrefetchingIter(sources) as iterator:
        for _ in range(3):
            await iterator.next()
        with pytest.raises(io.IteratorError, match=r"\[0\] ended"):
            await iterator.next()


async def test_different_pads_are_refused() -> None:
    data = np.zeros((10, 1), np.float32)
    inners = [
        io.NDArrayIter(data, batch_size=4),
        io.NDArrayIter(data[:9], batch_size=4),
    ]
    async with io.PrefetchingIter(inners) as iterator:
        await iterator.next()
        await iterator.next()
        with pytest.raises(AssertionError, match="entry mismatches"):
            await iterator.next()


async def test_without_any_scope_the_error_shows_the_line_to_write() -> None:
    iterator = io.PrefetchingIter(Source())
    with pytest.raises(io.IteratorError, match="async with PrefetchingIter"):
        await iterator.next()


async def test_lives_in_the_open_runtime_and_is_closed_with_it() -> None:
    source = Source()
    async with open_runtime():
        iterator = io.PrefetchingIter(source)
        assert int((await iterator.next()).data[0][0]) == 0
    assert source.closed
    with pytest.raises(ClosedError):
        await iterator.next()


async def test_a_consumer_that_waits_learns_of_the_close() -> None:
    class Silent(Source):
        async def next(self) -> io.DataBatch:
            await trio.sleep_forever()
            raise AssertionError

    iterator = io.PrefetchingIter(Silent())

    async def wait() -> None:
        with pytest.raises(ClosedError):
            await iterator.next()

    async with trio.open_nursery() as nursery, open_runtime():
        nursery.start_soon(wait)
        # The task inherits the context of the nursery, made outside the runtime.
        await trio.testing.wait_all_tasks_blocked()
        with trio.move_on_after(0):
            await iterator.next()


async def test_the_runtime_leaves_no_task_behind() -> None:
    before = trio.lowlevel.current_statistics().tasks_living
    async with open_runtime():
        for _ in range(3):
            await io.PrefetchingIter(Source()).next()
    assert trio.lowlevel.current_statistics().tasks_living == before


async def test_closing_while_cancelled_still_closes_the_source() -> None:
    source = Source()
    with trio.CancelScope() as scope:
        async with io.PrefetchingIter(source) as iterator:
            await iterator.next()
            scope.cancel()
            await trio.sleep_forever()
    assert scope.cancelled_caught
    assert source.closed


async def test_an_error_of_the_block_outlives_a_cancellation() -> None:
    async def fail(scope: trio.CancelScope) -> None:
        async with io.PrefetchingIter(Source()) as iterator:
            await iterator.next()
            scope.cancel()
            raise LookupError

    with trio.CancelScope() as scope, pytest.raises(LookupError):
        await fail(scope)


async def test_a_joined_batch_has_the_first_ones_bucket_key() -> None:
    async with io.PrefetchingIter([Source(), Source()]) as iterator:
        await iterator.next()
        batch = await iterator.next()
    assert batch.bucket_key == 10
    assert len(batch.data) == 2


async def test_a_blocking_source_runs_in_a_thread_beside_the_loop() -> None:
    source = Gated()
    async with io.PrefetchingIter(source) as iterator:
        got: list[int] = []

        async def consume() -> None:
            got.extend(await numbers(iterator))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(consume)
            for _ in range(source.count):
                await trio.testing.wait_all_tasks_blocked()  # the loop is free
                source.gate.release()
    assert got == [0, 1, 2]
    assert threading.get_ident() not in source.threads


async def test_cancelled_beside_a_blocking_source_nothing_is_lost() -> None:
    source = Gated()
    async with io.as_async(source) as iterator:  # type: ignore[attr-defined]
        for expected in range(source.count):
            with trio.move_on_after(0.001) as scope:
                await iterator.next()
            assert scope.cancelled_caught
            source.gate.release()
            assert int((await iterator.next()).data[0][0]) == expected


async def test_closing_names_a_source_that_does_not_come_back(
    autojump_clock: trio.testing.MockClock,
) -> None:
    source = Gated()
    with structlog.testing.capture_logs() as logs:
        async with io.PrefetchingIter(source) as iterator:
            with trio.move_on_after(1):
                await iterator.next()
    assert ["Gated" in line["event"] for line in logs] == [True]
    source.gate.release()


async def test_copies_where_a_source_fills_one_array_again() -> None:
    class Refilled(Source):
        array = np.zeros(1)

        def batch(self, number: int) -> io.DataBatch:
            self.array[0] = number
            return io.DataBatch([self.array], pad=0)

    async with io.PrefetchingIter(Refilled(), depth=3, copy=True) as iterator:
        assert await numbers(iterator) == list(range(6))


async def test_two_consumers_share_the_batches() -> None:
    got: list[int] = []

    async def consume() -> None:
        got.extend(await numbers(iterator))

    sources = [Source(), Source()]
    async with io.PrefetchingIter(sources) as iterator, trio.open_nursery() as nursery:
        nursery.start_soon(consume)
        nursery.start_soon(consume)
    assert sorted(got) == list(range(6))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"iters": []}, "at least one"),
        ({"iters": [Source()], "depth": 0}, "`depth`"),
        ({"iters": [Source()], "rename_data": []}, "`rename_data`"),
        ({"iters": [Source()], "rename_label": [{}, {}]}, "`rename_label`"),
    ],
)
def test_refused_arguments(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        io.PrefetchingIter(**arguments)
