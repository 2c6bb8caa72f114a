"""User code forks while modules work: the child is refused, the parent goes on."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable

import numpy as np
import pytest
import trio

import asyncmod as mx
from runtime.devices.process import process
from tests.asyncmod.module.nets import FEATURES, mlp, same
from tests.timing import check_never_slow

BATCH = 8
DEVICES = {
    "one thread": [mx.cpu(0)],
    "threads": [mx.cpu(0), mx.cpu(1)],
    "processes": [mx.cpu(i, worker="process") for i in range(2)],
}


def batch() -> mx.io.DataBatch:
    data = np.random.default_rng(1).normal(size=(BATCH, FEATURES)).astype(np.float32)
    return mx.io.DataBatch([data], [np.zeros(BATCH, np.float32)])


async def bound(where: str) -> mx.Module:
    """A module that has made a step; it belongs to the runtime."""
    mx.seed(2)
    module = mx.Module(mlp(), context=DEVICES[where])
    await module.bind([("data", (BATCH, FEATURES))], [("softmax_label", (BATCH,))])
    await module.init_params()
    await module.init_optimizer()
    await module.step(batch())
    return module


async def refused(*calls: Callable[[], Awaitable[object]]) -> int:
    """How many calls are refused at once."""
    count = 0
    for call in calls:
        with trio.fail_after(10):
            try:
                await call()
            except mx.errors.ClosedError as error:
                count += "was forked" in str(error)
    return count


@pytest.mark.parametrize("where", DEVICES)
async def test_a_forked_child_is_refused_and_the_parent_goes_on(where: str) -> None:
    async with mx.open_runtime():
        undisturbed = await bound(where)
        await undisturbed.step(batch())
        expected = await undisturbed.get_params()
    async with mx.open_runtime():
        module = await bound(where)
        child = os.fork()
        if child == 0:
            code = 99
            try:
                code = await refused(
                    lambda: module.step(batch()),
                    module.get_params,
                    lambda: module.predict(batch()),
                    lambda: bound(where),
                )
                await module.aclose()
            finally:
                os._exit(code)
        status = await trio.to_thread.run_sync(os.waitpid, child, 0)
        assert os.waitstatus_to_exitcode(status[1]) == 4
        await module.step(batch())
        assert same(await module.get_params(), expected)


async def test_a_child_that_stays_does_not_hold_workers_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(process, "_EXIT_SECONDS", 60.0)

    async def run() -> dict[str, float]:
        read, write = os.pipe()
        async with mx.open_runtime():
            await bound("processes")
            child = os.fork()
            if child == 0:
                os.close(write)
                os.read(read, 1)  # until the parent closes it
                os._exit(0)
            closing = trio.current_time()
        seconds = trio.current_time() - closing
        os.close(write)
        os.close(read)
        await trio.to_thread.run_sync(os.waitpid, child, 0)
        return {"closing": seconds} if seconds > 5 else {}

    await check_never_slow(run)
