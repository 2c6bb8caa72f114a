"""Workers killed at random moments of a training that has everything: the same bits."""

from __future__ import annotations

import itertools
import os
import random
import signal
import threading
from contextlib import suppress
from typing import Any

import pytest
from structlog.testing import capture_logs

import asyncmod as mx
from tests.faults.training import BATCH, ROWS, differing, train
from tests.processes import children

EPOCHS = 2
BATCHES = EPOCHS * ROWS // BATCH
POLICY = mx.WorkerPolicy(restarts=1000)


class Killer:
    """A callback: after four batches it kills a worker within the next milliseconds."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._after = self._random.sample(range(BATCHES - 10), 4)
        self._batches = itertools.count()
        self._timers: list[threading.Timer] = []

    def __call__(self, param: Any) -> None:
        if next(self._batches) in self._after:
            seconds = self._random.uniform(0, 0.01)
            self._timers.append(threading.Timer(seconds, self._kill))
            self._timers[-1].start()

    def _kill(self) -> None:
        pids = children(os.getpid())
        if pids:
            with suppress(ProcessLookupError):
                os.kill(self._random.choice(pids), signal.SIGKILL)

    def finish(self) -> None:
        for timer in self._timers:
            timer.join()


@pytest.mark.parametrize("seed", [1, 2])
def test_nothing_is_lost(seed: int) -> None:
    killer = Killer(seed)
    expected = mx.run(train, "thread", EPOCHS)
    with capture_logs() as lines:
        got = mx.run(train, "process", EPOCHS, killer, workers=POLICY)
    killer.finish()
    assert differing(got, expected) == []
    deaths = [line for line in lines if "another one takes over" in line["event"]]
    assert len(deaths) >= 2
