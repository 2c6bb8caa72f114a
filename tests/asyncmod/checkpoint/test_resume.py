"""Training that was interrupted goes on bit for bit as if nothing had happened."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trio

import asyncmod as mx
from asyncmod.checkpoint import Checkpoint, CheckpointError, latest, saved_files
from asyncmod.errors import ArgumentError, StopTraining, UnsupportedError
from tests.asyncmod.checkpoint.scenarios import (
    SCENARIOS,
    devices,
    iterator,
    normalized,
    perceptron,
    train,
)

Arrays = dict[str, np.ndarray[Any, Any]]


class Interrupted(Exception):
    """Raised in a callback, in place of whatever may end a program."""


def interrupting(at: int) -> Any:
    """A callback that raises at its `at`-th call."""
    counter = itertools.count(1)

    def callback(param: Any) -> None:
        if next(counter) == at:
            raise Interrupted

    return callback


def assert_same(got: Arrays, expected: Arrays) -> None:
    assert got.keys() == expected.keys()
    for name, array in expected.items():
        assert got[name].tobytes() == array.tobytes(), name


async def interrupted(name: str, prefix: Path, k: int, **options: Any) -> None:
    with pytest.raises(Interrupted):
        await train(name, interrupting(k), checkpoint=prefix, **options)


# Worker processes take long to start.
THREADS = [name for name in SCENARIOS if "worker process" not in name]
PROCESSES = [name for name in SCENARIOS if "worker process" in name]


@pytest.mark.parametrize("name", THREADS)
async def test_saving_changes_nothing(tmp_path: Path, name: str) -> None:
    expected = await train(name)
    saved = await train(name, checkpoint=tmp_path / "net", checkpoint_every=2)
    assert_same(saved, expected)


@pytest.mark.parametrize(
    ("name", "k"),
    [*itertools.product(THREADS, (5, 8)), *itertools.product(PROCESSES, [5])],
)
async def test_training_goes_on_bit_for_bit(tmp_path: Path, name: str, k: int) -> None:
    expected = await train(name)
    options = {"checkpoint_every": 2}
    await interrupted(name, tmp_path / "net", k, **options)
    # Another seed: nothing may come from the beginning of the script.
    resumed = await train(
        name, checkpoint=tmp_path / "net", resume="auto", seed=12, **options
    )
    assert_same(resumed, expected)


@pytest.mark.slow
@pytest.mark.parametrize("every", [1, 3])
@pytest.mark.parametrize("name", SCENARIOS)
async def test_wherever_it_was_interrupted(
    tmp_path: Path, name: str, every: int
) -> None:
    batches = itertools.count()
    expected = await train(name, lambda param: next(batches))
    for k in range(1, next(batches) + 1):
        prefix = tmp_path / f"{k}"
        await interrupted(name, prefix, k, checkpoint_every=every)
        resumed = await train(
            name, checkpoint=prefix, checkpoint_every=every, resume="auto"
        )
        assert_same(resumed, expected)


OPTIMIZERS = sorted(
    name
    for name, klass in mx.optimizer.Optimizer.opt_registry.items()
    if klass.rule is not None and name != "groupadagrad"  # for matrices alone
)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
async def test_every_optimizer_goes_on(tmp_path: Path, optimizer: str) -> None:
    name = "statistics of two devices"
    options = {"optimizer": optimizer, "optimizer_params": {}}
    expected = await train(name, **options)
    await interrupted(name, tmp_path / "net", 7, checkpoint_every=3, **options)
    resumed = await train(name, checkpoint=tmp_path / "net", resume="auto", **options)
    assert_same(resumed, expected)


def kill(*arguments: str) -> dict[str, dict[str, Any]]:
    """Run the program that kills; where no disk makes it wait, if there is such."""
    shared_memory = "/dev/shm" if os.path.isdir("/dev/shm") else None
    prefix = f"{os.getpid()}-"  # see tests.leaks
    with tempfile.TemporaryDirectory(dir=shared_memory, prefix=prefix) as folder:
        return kill_in(folder, *arguments)


def kill_in(folder: str, *arguments: str) -> dict[str, dict[str, Any]]:
    command = [sys.executable, "-m", "tests.asyncmod.checkpoint.kill", folder]
    process = subprocess.run(
        [*command, *arguments], capture_output=True, text=True, timeout=1800
    )
    assert process.returncode == 0, process.stdout + process.stderr
    results: dict[str, dict[str, Any]] = json.loads(process.stdout.splitlines()[-1])
    return results


def test_killed_trainings_go_on() -> None:
    names = ["dropout on two devices", "statistics of two devices"]
    scenarios = itertools.chain.from_iterable(("--scenario", name) for name in names)
    results = kill("--every", "5", *scenarios)
    for name in names:
        assert results[name] == {"killed": 3, "starts": 6, "differing": []}


@pytest.mark.slow
@pytest.mark.parametrize("name", SCENARIOS)
def test_killed_after_every_batch(name: str) -> None:
    result = kill("--scenario", name)[name]
    assert result["differing"] == []
    assert result["starts"] == 2 * result["killed"] >= 20


@pytest.mark.slow
@pytest.mark.parametrize("name", SCENARIOS)
def test_killed_at_random(name: str) -> None:
    result = kill("--random", "20", "--scenario", name)[name]
    assert result["differing"] == []
    assert result["killed"] > 0


async def test_what_was_finished_is_not_trained_again(tmp_path: Path) -> None:
    name = "dropout"
    expected = await train(name, checkpoint=tmp_path / "net")
    called = []
    again = await train(name, called.append, checkpoint=tmp_path / "net", resume="auto")
    assert_same(again, expected)
    assert called == []


async def test_what_was_stopped_stays_stopped(tmp_path: Path) -> None:
    name = "dropout"

    def stop(*args: Any) -> None:
        raise StopTraining("enough")

    options = {"epoch_end_callback": stop, "checkpoint": tmp_path / "net"}
    expected = await train(name, **options)
    called = []
    again = await train(name, called.append, resume="auto", **options)
    assert_same(again, expected)
    assert called == []
    file = latest(tmp_path / "net")
    assert file is not None
    assert file.header.epoch == 1


async def test_more_epochs_than_were_planned(tmp_path: Path) -> None:
    name = "dropout on two devices"
    expected = await train(name)
    await train(name, checkpoint=tmp_path / "net", num_epoch=1)
    resumed = await train(name, checkpoint=tmp_path / "net", resume="auto")
    assert_same(resumed, expected)


def damage(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-100] ^= 1
    path.write_bytes(content)


async def test_a_damaged_file_is_stepped_over(tmp_path: Path) -> None:
    name = "dropout"
    expected = await train(name)
    await interrupted(name, tmp_path / "net", 8, checkpoint_every=2)
    damage(Path(saved_files(tmp_path / "net")[-1].path))
    resumed = await train(
        name, checkpoint=tmp_path / "net", checkpoint_every=2, resume="auto"
    )
    assert_same(resumed, expected)


async def test_from_a_file(tmp_path: Path) -> None:
    name = "dropout"
    expected = await train(name)
    await interrupted(name, tmp_path / "net", 9, checkpoint_every=2)
    resumed = await train(
        name, checkpoint=tmp_path / "net", resume=tmp_path / "net-0004.asyncmod"
    )
    assert_same(resumed, expected)


async def test_nothing_to_resume_from(tmp_path: Path) -> None:
    name = "dropout"
    expected = await train(name)
    got = await train(name, checkpoint=tmp_path / "net", resume="auto")
    assert_same(got, expected)


async def test_checkpoints_of_another_training_are_not_lost(tmp_path: Path) -> None:
    await train("dropout", checkpoint=tmp_path / "net")
    with pytest.raises(ArgumentError, match=r'there are checkpoints.*resume="auto"'):
        await train("dropout", checkpoint=tmp_path / "net")


async def test_another_net_is_refused(tmp_path: Path) -> None:
    await train("dropout", checkpoint=tmp_path / "net")
    options = {"checkpoint": tmp_path / "net", "resume": "auto"}
    other = {"optimizer": "adam", "optimizer_params": {}}
    with pytest.raises(CheckpointError, match=r"of another module.*norm"):
        await train("statistics of two devices", **options, **other)
    with pytest.raises(CheckpointError, match=r"optimizer 'adam'.*uses 'sgd'"):
        await train("MXNet's order", **options)


async def test_other_devices_are_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    import logging

    logger = logging.getLogger("other devices")

    async def fit(count: int, **options: Any) -> None:
        async with mx.open_runtime():
            module = mx.Module(normalized(), logger=logger, context=devices(count))
            await module.fit(iterator(), checkpoint=tmp_path / "net", **options)
            _, auxiliaries = await module.get_params()
            means.append(auxiliaries["norm_moving_mean"])

    means: list[Any] = []
    with caplog.at_level(logging.WARNING):
        await fit(2, num_epoch=1)
        await fit(3, num_epoch=1, resume="auto")
    assert "saved on 2 devices, and the module is on 3" in caplog.text
    assert np.allclose(means[0], means[1])


class Own(mx.optimizer.Optimizer):
    """An optimizer of the user's own; keeps a momentum, a count and a name."""

    keeps: Any = "a name"

    def create_state(self, index: Any, weight: Any) -> Any:
        return [np.zeros_like(weight)], {"count": 0, "name": self.keeps, "more": (1, 2)}

    def update(self, index: Any, weight: Any, grad: Any, state: Any) -> None:
        self._update_count(index)
        (momentum,), kept = state
        kept["count"] += 1
        momentum[...] = 0.9 * momentum + grad
        weight -= 0.1 / kept["count"] * momentum


async def test_an_optimizer_of_ones_own_goes_on(tmp_path: Path) -> None:
    def options() -> dict[str, Any]:
        return {"optimizer": Own(rescale_grad=0.25)}

    expected = await train("dropout", **options())
    await interrupted("dropout", tmp_path / "net", 7, checkpoint_every=3, **options())
    resumed = await train(
        "dropout", checkpoint=tmp_path / "net", resume="auto", **options()
    )
    assert_same(resumed, expected)


async def test_an_optimizer_that_keeps_what_cannot_be_saved(tmp_path: Path) -> None:
    optimizer = Own(rescale_grad=0.25)
    optimizer.keeps = object()
    with pytest.raises(UnsupportedError, match=r"states of Own.*a object is neither"):
        await train("dropout", checkpoint=tmp_path / "net", optimizer=optimizer)
    assert saved_files(tmp_path / "net") == []


async def test_other_settings_are_refused(tmp_path: Path) -> None:
    name = "MXNet's order"
    await train(name, checkpoint=tmp_path / "net")
    settings = {"optimizer_params": {"momentum": 0.0}}
    with pytest.raises(CheckpointError, match=r"keeps the states \[\], .*momentum"):
        await train(name, checkpoint=tmp_path / "net", resume="auto", **settings)


class Unsavable(mx.io.NDArrayIter):
    """Its state is no plain data."""

    def get_state(self) -> dict[str, Any]:
        return {"rows": self}


async def test_what_cannot_be_saved_shows_at_once(tmp_path: Path) -> None:
    seen: list[Any] = []
    rows = np.zeros((8, 4), np.float32)
    async with mx.open_runtime():
        module = mx.Module(perceptron(), context=devices(1))
        with pytest.raises(CheckpointError, match=r"a Unsavable is no plain data"):
            await module.fit(
                Unsavable(rows, np.zeros(8), 4),
                num_epoch=1,
                batch_end_callback=seen.append,
                checkpoint=tmp_path / "net",
            )
    assert seen == []


@pytest.mark.parametrize("argument", ["checkpoint_every", "resume"])
async def test_arguments_that_need_a_prefix(argument: str) -> None:
    with pytest.raises(ArgumentError, match=f"`{argument}` needs `checkpoint`"):
        await train("dropout", **{argument: 5})


async def test_callbacks_go_on(tmp_path: Path) -> None:
    async def fit(num_epoch: int, **options: Any) -> Any:
        mx.seed(3)
        stopping = mx.callback.EarlyStopping("cross-entropy", patience=50)
        async with mx.open_runtime():
            module = mx.Module(perceptron(), context=devices(1))
            await module.fit(
                iterator(),
                iterator(shuffle=False),
                "ce",
                eval_end_callback=stopping,
                num_epoch=num_epoch,
                checkpoint=tmp_path / "net",
                **options,
            )
        return stopping

    first = await fit(3)
    second = await fit(3, resume="auto")
    assert first.best is not None
    assert second.get_state() == first.get_state()


async def test_random_numbers_go_on(tmp_path: Path) -> None:
    def drawing(numbers: list[float]) -> Any:
        return lambda param: numbers.append(float(mx.random.uniform()[0]))

    expected: list[float] = []
    await train("dropout", drawing(expected), checkpoint=tmp_path / "a", num_epoch=3)
    first: list[float] = []
    await train("dropout", drawing(first), checkpoint=tmp_path / "net", num_epoch=2)
    second: list[float] = []
    await train(
        "dropout",
        drawing(second),
        checkpoint=tmp_path / "net",
        num_epoch=3,
        resume="auto",
        seed=12,
    )
    assert first + second == expected


async def test_cancelled_nothing_is_left(tmp_path: Path) -> None:
    started = trio.Event()
    async with trio.open_nursery() as nursery:

        async def run() -> None:
            await train(
                "dropout",
                lambda param: started.set(),
                checkpoint=Checkpoint(tmp_path / "net", every_batches=1),
                num_epoch=10**6,
            )

        nursery.start_soon(run)
        await started.wait()
        nursery.cancel_scope.cancel()
    assert [name for name in os.listdir(tmp_path) if name.endswith(".partial")] == []
    file = latest(tmp_path / "net")
    assert file is None or file.header.step >= 1
