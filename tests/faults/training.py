"""The training that faults are injected into; `python -m tests.faults.training`.

Everything that must survive is in it: statistics of BatchNorm, Dropout, momentum, a
schedule, updates by several batches, shuffling; on two devices. It goes on from the
newest valid checkpoint, and notes each batch that it has applied.
"""

from __future__ import annotations

import argparse
import os
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import asyncmod as mx

ROWS, FEATURES, CLASSES, BATCH = 320, 12, 5, 8

Arrays = dict[str, np.ndarray[Any, Any]]
Batches = dict[tuple[int, int], int]


def net() -> mx.symbol.Symbol:
    net = mx.sym.FullyConnected(mx.sym.var("data"), num_hidden=24, name="fc1")
    net = mx.sym.BatchNorm(net, fix_gamma=False, name="bn")
    net = mx.sym.Dropout(mx.sym.Activation(net, act_type="tanh"), p=0.3, name="drop")
    net = mx.sym.FullyConnected(net, num_hidden=CLASSES, name="fc2")
    return mx.sym.SoftmaxOutput(net, name="softmax")


def batches() -> mx.io.NDArrayIter:
    random = np.random.default_rng(5)
    data = random.normal(size=(ROWS, FEATURES)).astype(np.float32)
    label = random.integers(0, CLASSES, ROWS).astype(np.float32)
    return mx.io.NDArrayIter(data, label, BATCH, shuffle=True)


async def train(
    worker: str,
    epochs: int,
    batch_end: Callable[[Any], Any] | None = None,
    **options: Any,
) -> Arrays:
    """Train from the beginning, or from where `options` say.

    Returns:
        Parameters and auxiliary states.
    """
    mx.seed(11)
    np.random.seed(11)
    contexts = [mx.cpu(i, worker=worker) for i in range(2)]
    schedule = mx.lr_scheduler.FactorScheduler(step=50, factor=0.95, base_lr=0.1)
    async with mx.Module(net(), context=contexts) as module:
        await module.fit(
            batches(),
            num_epoch=epochs,
            accumulate=2,
            optimizer_params={"momentum": 0.9, "lr_scheduler": schedule},
            initializer=mx.init.Xavier(),
            batch_end_callback=batch_end,
            progress=False,
            **options,
        )
        arguments, auxiliaries = await module.get_params()
    return {**arguments, **auxiliaries}


def differing(got: Arrays, expected: Arrays) -> list[str]:
    """The names of what is not equal bit for bit."""
    names = got.keys() | expected.keys()
    return sorted(
        name
        for name in names
        if name not in got
        or name not in expected
        or got[name].tobytes() != expected[name].tobytes()
    )


def recorder(log: int) -> Callable[[Any], None]:
    """A callback that notes the data of each batch."""

    def record(param: Any) -> None:
        data = np.ascontiguousarray(param.locals["data_batch"].data[0])
        line = f"{param.epoch} {param.nbatch} {zlib.crc32(data)}\n"
        os.write(log, line.encode())

    return record


def recorded(path: Path) -> Batches:
    """The batches that all starts have applied; one that two of them did is there once.

    Raises:
        ValueError: two starts had different data for the same batch.
    """
    found: Batches = {}
    for line in path.read_text().splitlines():
        epoch, number, checksum = map(int, line.split())
        if found.setdefault((epoch, number), checksum) != checksum:
            raise ValueError(
                f"batch {number} of epoch {epoch} has come with other data"
            )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="for the result")
    parser.add_argument("--checkpoints", type=Path, help="folder; none without it")
    parser.add_argument("--worker", choices=["thread", "process"], default="process")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--heartbeat", type=float, default=30.0)
    arguments = parser.parse_args()
    options: dict[str, Any] = {}
    if arguments.checkpoints is not None:
        options["resume"] = "auto"
        options["checkpoint"] = mx.checkpoint.Checkpoint(
            arguments.checkpoints / "net",
            every_batches=10,
            keep_last=4,
            on_error="log",
        )
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    log = os.open(arguments.folder / "batches", flags)
    policy = mx.WorkerPolicy(restarts=10_000, heartbeat=arguments.heartbeat)

    async def training() -> Arrays:
        return await train(arguments.worker, arguments.epochs, recorder(log), **options)

    result = mx.run(training, workers=policy)
    np.savez(arguments.folder / "result.npz", **result)


if __name__ == "__main__":
    main()
