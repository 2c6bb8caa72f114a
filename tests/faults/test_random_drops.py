"""Workers killed or stopped at random moments of `fit`, until one of three is left."""

from __future__ import annotations

import itertools
import os
import random
import signal
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from structlog.testing import capture_logs

import asyncmod as mx
from tests.asyncmod.module.test_worker_drop import continued
from tests.faults.training import batches, net
from tests.processes import children

POLICY = mx.WorkerPolicy(heartbeat=3.0)
SETTINGS = {"learning_rate": 0.1, "momentum": 0.9}


class Killer:
    """A callback: after two batches it ends a worker within the next milliseconds."""

    def __init__(self, seed: int, how: int) -> None:
        self._random = random.Random(seed)
        self._after = self._random.sample(range(30), 2)
        self._how = how
        self._batches = itertools.count()
        self._timers: list[threading.Timer] = []

    def __call__(self, param: Any) -> None:
        if next(self._batches) in self._after:
            seconds = self._random.uniform(0, 0.01)
            self._timers.append(threading.Timer(seconds, self._end_one))
            self._timers[-1].start()

    def _end_one(self) -> None:
        pids = children(os.getpid())
        if len(pids) > 1:
            with suppress(ProcessLookupError):
                os.kill(self._random.choice(pids), self._how)

    def finish(self) -> None:
        for timer in self._timers:
            timer.join()


async def fit(killer: Killer) -> Any:
    mx.seed(11)
    np.random.seed(11)
    contexts = [mx.cpu(i, worker="process") for i in range(3)]
    seen = []

    def batch_end(param: Any) -> None:
        seen.append(param.nbatch)
        killer(param)

    async with mx.Module(net(), context=contexts, on_worker_death="drop") as mod:
        await mod.fit(
            batches(),
            optimizer_params=SETTINGS,
            initializer=mx.init.Xavier(),
            batch_end_callback=batch_end,
            progress=False,
            num_epoch=1,
        )
        return await mod.get_params(), mod.contexts, seen


async def steps(drops: list[Any], path: Path) -> Any:
    """The same on threads, each device left out from where it was dropped."""
    mx.seed(11)
    np.random.seed(11)
    source = batches()
    mod = mx.Module(net(), context=[mx.cpu(i) for i in range(3)])
    await mod.bind(source.provide_data, source.provide_label)
    await mod.init_params(mx.init.Xavier())
    await mod.init_optimizer(optimizer_params=SETTINGS)
    nbatch = 0
    async for batch in source:
        for drop in drops:
            if drop["step"] == nbatch:
                names = [str(context) for context in mod.contexts]
                kept = [i for i, n in enumerate(names) if n != drop["device"]]
                mod = await continued(mod, kept, path)
        await mod.step(batch)
        nbatch += 1
    await mod.inside.synchronize()
    return await mod.get_params(), nbatch


@pytest.mark.parametrize(
    ("seed", "how"), [(1, signal.SIGKILL), (2, signal.SIGKILL), (3, signal.SIGSTOP)]
)
def test_training_goes_on_over_the_rest(seed: int, how: int, tmp_path: Path) -> None:
    killer = Killer(seed, how)
    with capture_logs() as lines:
        got, contexts, seen = mx.run(fit, killer, workers=POLICY)
    killer.finish()
    drops = [line for line in lines if "is dropped" in line["event"]]
    assert len(contexts) == 3 - len(drops)
    assert len(drops) >= 1
    expected, count = mx.run(steps, drops, tmp_path / "states")
    assert seen == list(range(count))
    for values, others in zip(got, expected, strict=True):
        for name in values:
            assert values[name].tobytes() == others[name].tobytes(), name
