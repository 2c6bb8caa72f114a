"""What `fit` shows: a bar on a terminal, lines elsewhere, and when nothing."""

from __future__ import annotations

import logging
import os
import pty
import re
import sys
import threading
from collections.abc import Iterator
from typing import Any, TextIO

import numpy as np
import pytest
import trio

import asyncmod as mx
from asyncmod.io import NDArrayIter
from asyncmod.progress import Outline, screen
from asyncmod.progress.pace import Pace
from tests.asyncmod.module.nets import mlp, rows
from tests.harness.cancellation import cancel_at_every_step


class Clock:
    """A clock that goes `step` seconds per look."""

    def __init__(self, step: float) -> None:
        self.now, self.step = 0.0, step

    def __call__(self) -> float:
        self.now += self.step
        return self.now


def clock(monkeypatch: pytest.MonkeyPatch, step: float) -> Clock:
    made = Clock(step)
    monkeypatch.setattr("asyncmod.progress.pace.perf_counter", made)
    return made


class Terminal:
    """A pseudo terminal as standard error; what was written to it is `text`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        master, slave = pty.openpty()
        self._monkeypatch = monkeypatch
        self.stream: TextIO = os.fdopen(slave, "w", encoding="utf-8")
        self._master = master
        self._parts: list[bytes] = []
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def attach(self) -> None:
        """Make it standard error; in the test itself, since pytest sets it anew."""
        self._monkeypatch.setattr(sys, "stderr", self.stream)

    def _read(self) -> None:
        try:
            while part := os.read(self._master, 4096):
                self._parts.append(part)
        except OSError:  # the other end is closed
            pass

    def close(self) -> None:
        if not self.stream.closed:
            self.stream.close()
            self._thread.join()
            os.close(self._master)

    @property
    def text(self) -> str:
        """Everything, once it is closed."""
        self.close()
        return b"".join(self._parts).decode()

    @property
    def lines(self) -> list[str]:
        """The same without colors and movements of the cursor."""
        plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", self.text)
        return [line.strip() for line in re.split(r"[\r\n]+", plain) if line.strip()]


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[Terminal]:
    made = Terminal(monkeypatch)
    for name, value in {"TERM": "xterm", "COLUMNS": "120", "LINES": "40"}.items():
        monkeypatch.setenv(name, value)
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    yield made
    made.close()


def data(count: int = 24) -> NDArrayIter:
    return NDArrayIter(*rows(count), batch_size=8)


async def fit(logger: Any = None, **options: Any) -> mx.history.History:
    """Two epochs of three batches, with validation."""
    options = {"num_epoch": 2, "eval_data": data(8)} | options
    async with mx.Module(mlp(), context=mx.reference(), logger=logger) as module:
        return await module.fit(data(), **options)


async def test_a_bar_on_a_terminal(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal.attach()
    clock(monkeypatch, 0.25)
    history = await fit(logger=logging.getLogger("fit"))
    bars = [line for line in terminal.lines if line.startswith("Epoch ")]
    assert bars[0].startswith("Epoch 1/2")
    assert " 0/3 " in bars[0]
    assert [word for bar in bars for word in re.findall(r"\d/3", bar)][-1] == "3/3"
    assert bars[-1].startswith("Epoch 2/2")
    accuracy = history.epochs[-1]["train-accuracy"]
    assert bars[-1].endswith(f"32 samples/s  accuracy={accuracy:f}")
    assert any(bar.endswith("validation batch 1") for bar in bars)
    assert terminal.text.count("\x1b[?25l") == terminal.text.count("\x1b[?25h") == 1


async def test_drawn_ten_times_a_second_at_most(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many batches there are: the clock here stands still, or goes slowly."""
    terminal.attach()
    from asyncmod.progress.bar import Bar

    draws: list[str | None] = []
    draw = Bar._draw

    def note(bar: Bar, instead: str | None = None) -> None:
        draws.append(instead)
        draw(bar, instead)

    monkeypatch.setattr(Bar, "_draw", note)
    drawn = []
    for step in (0.0, 0.03125):
        watch = clock(monkeypatch, step)
        before = len(draws)
        async with mx.Module(mlp(), context=mx.reference()) as module:
            await module.fit(data(8), num_epoch=10, eval_data=data(8))
        drawn.append(len(draws) - before)
    # At the end; and when a tenth of a second has passed, short as the epochs are.
    assert drawn[0] == 1
    assert 9 < drawn[1] <= 1 + watch.now / 0.1


def test_pace(monkeypatch: pytest.MonkeyPatch) -> None:
    clock(monkeypatch, 0.03125)
    pace = Pace(0.1, 3)
    pace.begin_epoch()
    assert [pace.batch(8) for _ in range(4)] == [False, False, True, False]
    assert pace.speed == 3 * 8 / 0.09375
    assert [pace.batch(8) for _ in range(5)] == [False, False, True, False, False]
    assert pace.speed == 4 * 8 / 0.125
    assert (pace.done, pace.total) == (9, 9)  # more than was announced
    pace.begin_epoch()
    assert (pace.done, pace.total) == (0, 9)
    pace.begin_epoch(7)  # resumed in its middle
    pace.batch(8)
    assert (pace.done, pace.total) == (8, 9)
    unknown = Pace(0.1, 0)
    unknown.batch(8)
    assert unknown.total == 0
    unknown.begin_epoch()
    assert unknown.total == 1


async def test_log_lines_stand_above_the_bar(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal.attach()
    clock(monkeypatch, 0.25)
    logger = logging.getLogger("above")
    handler = logging.StreamHandler(terminal.stream)
    monkeypatch.setattr(logger, "handlers", [handler])
    monkeypatch.setattr(logger, "propagate", False)
    logger.setLevel(logging.INFO)

    def told(param: Any) -> None:
        print(f"told {param.nbatch}", file=sys.stderr)

    await fit(logger=logger, num_epoch=1, batch_end_callback=told)
    assert handler.stream is terminal.stream
    assert sys.stderr is terminal.stream
    lines = terminal.lines
    assert [line for line in lines if line.startswith("told")] == [
        f"told {nbatch}" for nbatch in range(3)
    ]
    assert (
        sum(bool(re.fullmatch(r"Epoch\[0\] \S+=[\d.]+", line)) for line in lines) == 2
    )
    assert lines[-1].startswith("Epoch 1/1")


async def test_trainings_at_once_have_a_bar_each(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal.attach()
    clock(monkeypatch, 0.25)
    begun: set[int] = set()
    both = trio.Event()

    async def meet(param: Any) -> None:
        begun.add(param.locals["num_epoch"])
        if len(begun) == 2:
            both.set()
        await both.wait()

    async with trio.open_nursery() as nursery:
        for epochs in (2, 3):
            options: dict[str, Any] = {"logger": logging.getLogger("fit")}
            options |= {"num_epoch": epochs, "batch_end_callback": meet}
            nursery.start_soon(lambda o: fit(**o), options)
    last = sorted(line[:9] for line in terminal.lines[-2:])
    assert last == ["Epoch 2/2", "Epoch 3/3"]
    assert terminal.text.count("\x1b[?25h") == 1


async def test_the_screen_is_tidy_after_an_error_and_can_be_used_again(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal.attach()

    def fail(param: Any) -> None:
        raise ZeroDivisionError

    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            await fit(batch_end_callback=fail)
        assert sys.stderr is terminal.stream
    with trio.CancelScope() as scope:
        await fit(batch_end_callback=lambda param: scope.cancel())
    assert scope.cancelled_caught
    assert sys.stderr is terminal.stream
    assert terminal.text.count("\x1b[?25h") == terminal.text.count("\x1b[?25l") == 3


@pytest.mark.parametrize(
    "talker",
    [
        mx.callback.Speedometer(8, 1),
        mx.callback.ProgressBar(3),
        mx.callback.log_train_metric(1),
    ],
)
async def test_nothing_beside_callbacks_that_report(
    terminal: Terminal, talker: Any
) -> None:
    terminal.attach()
    logger = logging.getLogger("fit")
    await fit(logger=logger, batch_end_callback=[lambda param: None, talker])
    assert terminal.text == ""


@pytest.mark.parametrize(("progress", "bar"), [(True, True), (False, False)])
async def test_it_can_be_switched(
    terminal: Terminal, progress: bool, bar: bool
) -> None:
    terminal.attach()
    logger = logging.getLogger("fit")
    speed = mx.callback.Speedometer(8, 1)
    await fit(logger=logger, batch_end_callback=speed, progress=progress)
    assert ("Epoch 2/2" in terminal.text) is bar


@pytest.mark.parametrize("why", ["pipe", "dumb", "no rich", "no stream"])
async def test_lines_elsewhere(
    why: str,
    terminal: Terminal,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    terminal.attach()
    clock(monkeypatch, 4.0)
    caplog.set_level(logging.INFO)
    if why == "dumb":
        monkeypatch.setenv("TERM", "dumb")
    elif why == "no rich":
        monkeypatch.setattr("asyncmod.progress.display.find_spec", lambda name: None)
    elif why == "no stream":
        monkeypatch.setattr(sys, "stderr", None)
    reader, writer = os.pipe()
    with os.fdopen(reader) as received, os.fdopen(writer, "w") as pipe:
        if why == "pipe":
            monkeypatch.setattr(sys, "stderr", pipe)
        history = await fit(logger=logging.getLogger("fit"), eval_data=data(32))
        pipe.close()
        assert received.read() == ""
    assert terminal.text == ""
    lines = [m for m in caplog.messages if "atch[" in m]
    accuracy = {(r["epoch"], r["nbatch"]): r["train-accuracy"] for r in history.batches}
    assert lines == [
        f"Epoch[0] Batch[2/3]\tSpeed: 2.00 samples/sec\taccuracy={accuracy[0, 1]:f}",
        "Epoch[0] Validation batch[2]",
        f"Epoch[1] Batch[1/3]\tSpeed: 2.00 samples/sec\taccuracy={accuracy[1, 0]:f}",
        "Epoch[1] Validation batch[1]",
        "Epoch[1] Validation batch[4]",
    ]


async def test_no_lines_in_short_trainings(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    await fit(logger=logging.getLogger("fit"), progress=True)
    assert not [m for m in caplog.messages if "atch[" in m]


async def test_cancelled_at_every_step_the_terminal_is_as_before(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal.attach()
    clock(monkeypatch, 0.25)
    logger = logging.getLogger("fit")

    async def check(finished: bool) -> None:
        assert sys.stderr is terminal.stream
        assert screen._screen is None

    async with mx.open_runtime() as runtime:
        steps = await cancel_at_every_step(
            lambda: fit(logger=logger, num_epoch=1), check, runtime=runtime
        )
    assert steps > 10
    assert terminal.text.count("\x1b[?25h") == terminal.text.count("\x1b[?25l") > 1


async def test_showing_asks_nothing_of_a_device(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is asked of the modules is the same with and without a bar."""
    terminal.attach()
    clock(monkeypatch, 1.0)
    asked: list[str] = []

    class Asked(mx.Module):
        def __getattribute__(self, name: str) -> Any:
            asked.append(name)
            return super().__getattribute__(name)

    counts = []
    for progress in (False, True):
        async with Asked(mlp(), context=mx.cpu()) as module:
            asked.clear()
            await module.fit(data(), num_epoch=2, progress=progress)
            counts.append(list(asked))
    assert counts[0] == counts[1]


def test_how_many_batches_iterators_announce() -> None:
    from operator import length_hint

    source = data(20)
    assert length_hint(source) == 3
    resized = mx.io.ResizeIter(source, 7)
    assert length_hint(resized) == 7
    assert length_hint(mx.io.PrefetchingIter([resized, source])) == 3
    assert Outline(0, 2, length_hint(iter(np.zeros((5, 2))), 0)).batches == 5
