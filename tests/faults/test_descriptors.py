"""No file descriptor is left (RLIMIT_NOFILE): a typed error, nothing lost, then on."""

from __future__ import annotations

import errno
import gc
import os
import resource
import signal
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import asyncmod as mx
from asyncmod.checkpoint import CheckpointError, open_checkpoint, write_checkpoint
from runtime.devices.contract import Program
from runtime.devices.factory import create_device
from runtime.devices.host import HostProgram
from runtime.devices.process.client import Worker
from runtime.devices.process.device import ProcessDevice
from runtime.errors import DeviceError
from tests.asyncmod.checkpoint.samples import HEADER
from tests.asyncmod.module.nets import mlp, rows, same
from tests.conformance.nets import mlp as device_net
from tests.conformance.nets import results
from tests.leaks import Resources

BATCH = 8


@contextmanager
def descriptors_left(count: int) -> Iterator[None]:
    """Let this process open so many files more; those below the last one are taken."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    top = max(int(name) for name in os.listdir("/proc/self/fd")) + 1
    plugs: list[int] = []
    while not plugs or plugs[-1] < top:
        plugs.append(os.open(os.devnull, os.O_RDONLY))
    resource.setrlimit(resource.RLIMIT_NOFILE, (plugs[-1] + 1 + count, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for plug in plugs:
            os.close(plug)


def starts_with(count: int, device: ProcessDevice) -> bool:
    """Whether a worker starts with so many; if not, all is as it was."""
    before = Resources.now()
    with descriptors_left(count):
        try:
            device_net().compile(device, True)
        except DeviceError as error:
            said, cause = str(error), error.__cause__
        else:
            return True
    assert "file descriptors, and there are none left" in said
    assert isinstance(cause, OSError)
    assert cause.errno == errno.EMFILE
    del cause  # and with it the variables of what failed
    assert Resources.now().beyond(before) == []
    return False


def open_device() -> ProcessDevice:
    device = create_device("cpu", worker="process")
    assert isinstance(device, ProcessDevice)
    return device


def test_a_worker_cannot_be_started_without_descriptors() -> None:
    with closing(open_device()) as first:  # imports what needs files to be imported
        device_net().compile(first, True)
    with closing(open_device()) as device:
        # Memory, its file and its first page, a connection, pipes, ...: each lacks.
        counts = [n for n in range(20) if not starts_with(n, device)]
        assert counts == list(range(len(counts)))
        assert 8 <= len(counts) < 20


@pytest.mark.parametrize(
    ("owner", "name", "position"),
    [(HostProgram, "__init__", 0), (Worker, "_send_plan", 1)],
)
async def test_a_bind_that_fails_leaves_no_file_open(
    monkeypatch: pytest.MonkeyPatch, owner: type, name: str, position: int
) -> None:
    """Memory and its files are gone at once, before the garbage collector comes."""
    whole = getattr(owner, name)

    def fail(*args: Any, **options: Any) -> None:
        whole(*args, **options)
        if "forward" in args[position].plan.sections:
            raise ValueError("no")

    shapes = [("data", (4, 2))], [("softmax_label", (4,))]
    contexts = [mx.cpu(i, worker="process") for i in range(2)]
    async with mx.Module(mlp(), context=contexts) as module:
        await module.bind(*shapes)
        before = len(os.listdir("/proc/self/fd"))
        gc.disable()
        try:
            with monkeypatch.context() as patch:
                patch.setattr(owner, name, fail)
                with pytest.raises(ValueError, match="no"):
                    await module.bind(*shapes, force_rebind=True)
            assert len(os.listdir("/proc/self/fd")) == before
        finally:
            gc.enable()


def run(program: Program) -> None:
    program.launch("step")
    program.wait()


def kill_and_run(pid: int, program: Program) -> None:
    os.kill(pid, signal.SIGKILL)
    run(program)


def test_a_worker_that_died_has_no_successor_until_there_are_some() -> None:
    with closing(open_device()) as device:
        net = device_net()
        program = net.compile(device, True)
        net.load(program)
        run(program)
        expected = results(program)
        process = device.worker.process
        assert process is not None
        with descriptors_left(0), pytest.raises(DeviceError, match="none left"):
            kill_and_run(process.pid, program)
        run(program)
        assert same(results(program), expected)


async def test_a_training_on_threads_needs_no_more_of_them() -> None:
    data, label = rows(4 * BATCH)

    async def trained(count: int) -> object:
        mx.seed(3)
        async with mx.open_runtime():
            module = mx.Module(mlp(), context=[mx.cpu(0), mx.cpu(1)])
            batches = mx.io.NDArrayIter(data, label, BATCH)
            with descriptors_left(count):
                await module.fit(batches, num_epoch=2, progress=False)
            return await module.get_params()

    expected = await trained(100)
    assert same(await trained(0), expected)


def test_a_checkpoint_cannot_be_saved_without_descriptors(tmp_path: Path) -> None:
    path = tmp_path / "net-0001.asyncmod"
    write_checkpoint(path, HEADER, {"a": np.zeros(3)})
    with descriptors_left(0):
        with pytest.raises(CheckpointError, match="cannot save") as caught:
            write_checkpoint(path, HEADER, {"a": np.ones(3)})
        assert caught.value.errno == errno.EMFILE
        with pytest.raises(CheckpointError, match="Too many open files"):
            open_checkpoint(path)
    file = open_checkpoint(path)
    assert not file["a"].any()
    file.close()
    assert os.listdir(tmp_path) == [path.name]
