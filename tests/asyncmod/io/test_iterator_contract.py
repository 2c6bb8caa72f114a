"""Every iterator of asyncmod through the contract suite."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import numpy as np
import pytest
import structlog

from asyncmod import io
from asyncmod.errors import ScopeError
from asyncmod.io import fairness
from asyncmod.testing import check_iterator

DATA = np.arange(22.0, dtype=np.float32).reshape(11, 2)
LABEL = np.arange(11)


def arrays(**options: Any) -> io.NDArrayIter:
    return io.NDArrayIter(DATA, LABEL, **{"batch_size": 4, "seed": 3, **options})


class Plain(io.DataIter):
    """MXNet's style: a synchronous `next`, and no states."""

    def __init__(self) -> None:
        super().__init__(2)
        self.provide_data = [io.DataDesc("data", (2,))]
        self.position = 0

    def next(self) -> io.DataBatch:
        if self.position == 3:
            raise StopIteration
        self.position += 1
        return io.DataBatch([np.full(2, self.position)])

    def reset(self) -> None:
        self.position = 0


class AsyncIterable:
    """Begins anew with every `async for`."""

    provide_data = (io.DataDesc("data", (2,)),)
    batch_size = 2

    async def __aiter__(self) -> AsyncIterator[Any]:
        for i in range(3):
            yield np.full(2, i)


class Iterable:
    """Begins anew with every `for`."""

    provide_data = (io.DataDesc("data", (2,)),)
    batch_size = 2

    def __iter__(self) -> Iterator[Any]:
        return iter([(np.full(2, i), None) for i in range(3)])


MAKERS = {
    "pad": lambda: arrays(),
    "discard": lambda: arrays(last_batch_handle="discard"),
    "roll_over": lambda: arrays(last_batch_handle="roll_over"),
    "shuffle": lambda: arrays(shuffle=True),
    "shuffle_roll_over": lambda: arrays(shuffle=True, last_batch_handle="roll_over"),
    "small_roll_over": lambda: arrays(batch_size=30, last_batch_handle="roll_over"),
    "resize": lambda: io.ResizeIter(arrays(shuffle=True), 5),
    "resize_keep": lambda: io.ResizeIter(arrays(), 2, reset_internal=False),
    "prefetch": lambda: io.PrefetchingIter(arrays(shuffle=True)),
    "prefetch_roll_over": lambda: io.PrefetchingIter(
        arrays(last_batch_handle="roll_over"), depth=5
    ),
    "prefetch_two": lambda: io.PrefetchingIter(
        [arrays(), io.NDArrayIter(DATA, batch_size=4)],
        rename_data=[{"data": "one"}, {"data": "two"}],
        depth=1,
    ),
    "prefetch_copy": lambda: io.PrefetchingIter(arrays(), copy=True),
    "prefetch_thread": lambda: io.PrefetchingIter(Plain()),
    "prefetch_async": lambda: io.PrefetchingIter(AsyncIterable()),
    "prefetch_resize": lambda: io.PrefetchingIter(io.ResizeIter(arrays(), 5)),
    "resize_prefetch": lambda: EnteredResize(),
    "plain": lambda: io.as_async(Plain()),
    "iterable": lambda: io.as_async(Iterable()),
}


class EnteredResize:
    """ResizeIter over a PrefetchingIter, both entered."""

    async def __aenter__(self) -> io.ResizeIter:
        self.inner = io.PrefetchingIter(arrays())
        return io.ResizeIter(await self.inner.__aenter__(), 5)

    async def __aexit__(self, *exc_info: Any) -> None:
        await self.inner.__aexit__(*exc_info)


@pytest.mark.parametrize("name", MAKERS)
async def test_contract(name: str) -> None:
    with structlog.testing.capture_logs():
        epochs = 3 if "roll_over" in name or "keep" in name else 2
        if name == "small_roll_over":
            epochs = 5
        await check_iterator(MAKERS[name], epochs=epochs)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["pad", "shuffle_roll_over", "prefetch"])
async def test_contract_where_copies_are_large(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("asyncmod.io.ndarray_iter.LARGE_COPY", 0)
    assert fairness.LARGE_COPY > 0
    await check_iterator(MAKERS[name])  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "wrap",
    [lambda it: it, io.PrefetchingIter, lambda _: io.as_async(iter([]))],
    ids=["NDArrayIter", "PrefetchingIter", "adapter"],
)
def test_outside_trio_the_error_says_so(wrap: Any) -> None:
    async def main() -> None:
        await wrap(io.NDArrayIter(np.zeros((4, 2)), batch_size=2)).next()

    with pytest.raises(ScopeError, match=r"no Trio task: .*mx\.run\(main\)"):
        asyncio.run(main())
