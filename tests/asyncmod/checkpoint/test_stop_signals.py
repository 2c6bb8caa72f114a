"""SIGTERM and ctrl-C end a training in good order, and at once when they come again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import asyncmod as mx
from asyncmod.checkpoint import latest, saved_files
from asyncmod.stop_signals import StopSignals
from tests.asyncmod.checkpoint.scenarios import devices, iterator, perceptron

SECONDS = 60


def start(prefix: Path, then: str) -> subprocess.Popen[str]:
    """Start a training, and wait until it has applied some batches."""
    command = [sys.executable, "-m", "tests.asyncmod.checkpoint.endless"]
    process = subprocess.Popen(
        [*command, str(prefix), then],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


@pytest.mark.parametrize("then", ["train", "data"])
@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, -signal.SIGINT)]
)
def test_the_step_is_finished_and_saved(
    tmp_path: Path, then: str, number: signal.Signals, code: int
) -> None:
    process = start(tmp_path / "net", then)
    process.send_signal(number)
    printed, errors = process.communicate(timeout=SECONDS)
    assert process.returncode == code, errors
    file = latest(tmp_path / "net")
    assert file is not None
    assert printed == f"applied {file.header.step}\n"
    assert file.header.step == 3 if then == "data" else file.header.step >= 3


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_second_one_ends_it_at_once(tmp_path: Path, number: signal.Signals) -> None:
    process = start(tmp_path / "net", "callback")
    process.send_signal(number)
    # The first one is noted between two instructions of the program; one that came
    # before that would be the same one.
    while process.poll() is None:
        process.send_signal(number)
        try:
            process.wait(0.05)
        except subprocess.TimeoutExpired:
            continue
    process.communicate(timeout=SECONDS)
    assert process.returncode == -number
    assert saved_files(tmp_path / "net") == []


@pytest.mark.parametrize("at", ["batch_end_callback", "epoch_end_callback"])
async def test_no_signal_is_lost_at_the_end(tmp_path: Path, at: str) -> None:
    def last(*args: Any) -> None:
        if (args[0] if at == "epoch_end_callback" else args[0].epoch) == 1:
            received.append(os.kill(os.getpid(), signal.SIGTERM))

    def first(*args: Any) -> None:
        if not received:
            last(*args)

    received: list[Any] = []
    async with mx.open_runtime():
        module = mx.Module(perceptron(), context=devices(1))
        with pytest.raises(SystemExit) as caught:
            await module.fit(
                iterator(),
                num_epoch=2,
                checkpoint=tmp_path / "net",
                **{at: first},
            )
    assert caught.value.code == 143
    file = latest(tmp_path / "net")
    assert file is not None
    step = file.header.step
    file.close()
    assert step == 12 if at == "epoch_end_callback" else step >= 7


async def test_handlers_are_put_back_and_those_of_others_are_left_alone() -> None:
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    mine = signal.signal(signal.SIGTERM, lambda number, frame: None)
    theirs = signal.getsignal(signal.SIGTERM)
    signals = StopSignals()
    try:
        signals.install()
        assert signal.getsignal(signal.SIGTERM) is theirs
        assert signal.getsignal(signal.SIGINT) != before[1]
        signals.remove()
    finally:
        signal.signal(signal.SIGTERM, mine)
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


def test_what_ends_the_program_comes_out_bare() -> None:
    import trio

    async def leave() -> None:
        raise SystemExit(143)

    async def main() -> None:
        async with trio.open_nursery() as outer, trio.open_nursery() as inner:
            inner.start_soon(leave)
            outer.start_soon(trio.sleep_forever)

    with pytest.raises(SystemExit) as caught:
        mx.run(main)
    assert caught.value.code == 143
