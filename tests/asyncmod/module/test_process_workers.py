"""Modules on worker processes: the same bits as on threads, and nothing left behind."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import asyncmod as mx
from runtime.devices.contract import OnDeath
from runtime.devices.process.client import Worker
from tests.asyncmod.module.nets import CLASSES, same

ROWS, BATCH = 24, 8


def dropout_net() -> mx.symbol.Symbol:
    net = mx.sym.FullyConnected(mx.sym.Variable("data"), num_hidden=9)
    net = mx.sym.Dropout(mx.sym.Activation(net, act_type="relu"), p=0.4)
    net = mx.sym.FullyConnected(mx.sym.BatchNorm(net), num_hidden=CLASSES)
    return mx.sym.SoftmaxOutput(net, name="softmax")


def conv_net() -> mx.symbol.Symbol:
    net = mx.sym.Variable("data")
    net = mx.sym.Convolution(net, num_filter=5, kernel=(3, 3), pad=(1, 1))
    net = mx.sym.Activation(mx.sym.BatchNorm(net, fix_gamma=False), act_type="relu")
    net = mx.sym.Pooling(net, kernel=(2, 2), stride=(2, 2), pool_type="max")
    net = mx.sym.FullyConnected(mx.sym.Flatten(net), num_hidden=CLASSES)
    return mx.sym.SoftmaxOutput(net, name="softmax")


def fallback_net() -> mx.symbol.Symbol:
    """Rows that no kernel runs, between rows that kernels run."""
    net = mx.sym.FullyConnected(mx.sym.Variable("data"), num_hidden=6)
    net = mx.sym.sin(mx.sym.slice_axis(net, axis=1, begin=0, end=4))
    net = mx.sym.FullyConnected(net, num_hidden=CLASSES)
    return mx.sym.SoftmaxOutput(net, name="softmax")


NETS: dict[str, tuple[Callable[[], mx.symbol.Symbol], tuple[int, ...]]] = {
    "dropout": (dropout_net, (5,)),
    "conv": (conv_net, (2, 6, 6)),
    "fallback": (fallback_net, (5,)),
}


async def fit(
    name: str,
    contexts: list[mx.Context],
    optimizer: str = "sgd",
    **settings: Any,
) -> Any:
    """Train for two epochs; everything that a training leaves."""
    make, shape = NETS[name]
    random = np.random.default_rng(3)
    data = random.normal(size=(ROWS, *shape)).astype(np.float32)
    label = random.integers(0, CLASSES, ROWS).astype(np.float32)
    mx.seed(11)
    np.random.seed(11)
    with mx.name.NameManager():
        symbol = make()
    batches = mx.io.NDArrayIter(data, label, BATCH, shuffle=True)
    async with mx.Module(symbol, context=contexts) as mod:
        await mod.fit(
            batches,
            num_epoch=2,
            optimizer=optimizer,
            optimizer_params={"learning_rate": 0.05, **settings},
            initializer=mx.init.Xavier(),
        )
        parameters, auxiliaries = await mod.get_params()
        predicted = await mod.predict(batches)
        return parameters, auxiliaries, await mod.get_grads(), predicted


@pytest.mark.parametrize("kind", [mx.cpu, mx.reference])
@pytest.mark.parametrize("devices", [1, 2])
@pytest.mark.parametrize("name", NETS)
def test_processes_compute_what_threads_compute(
    name: str, devices: int, kind: Callable[..., mx.Context]
) -> None:
    async def both() -> tuple[Any, Any]:
        threads = [kind(i) for i in range(devices)]
        processes = [kind(i, worker="process") for i in range(devices)]
        return (
            await fit(name, threads, momentum=0.9),
            await fit(name, processes, momentum=0.9),
        )

    expected, got = mx.run(both)
    assert same(got, expected)


@pytest.mark.parametrize("optimizer", ["adam", "rmsprop", "lamb"])
def test_other_optimizers_agree(optimizer: str) -> None:
    async def both() -> tuple[Any, Any]:
        processes = [mx.cpu(i, worker="process") for i in range(2)]
        return (
            await fit("dropout", [mx.cpu(0), mx.cpu(1)], optimizer),
            await fit("dropout", processes, optimizer),
        )

    expected, got = mx.run(both)
    assert same(got, expected)


def test_a_thread_and_a_process_train_together() -> None:
    async def both() -> tuple[Any, Any]:
        return (
            await fit("conv", [mx.cpu(0), mx.cpu(1)], momentum=0.9),
            await fit("conv", [mx.cpu(0), mx.cpu(1, worker="process")], momentum=0.9),
        )

    expected, got = mx.run(both)
    assert same(got, expected)


def test_workers_of_several_devices_start_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """None of them waits until another one has come."""
    all_of_them = threading.Barrier(3)
    start = Worker.start

    def meet(self: Worker, on_death: OnDeath) -> None:
        if self.process is None:
            all_of_them.wait(60)
        start(self, on_death)

    monkeypatch.setattr(Worker, "start", meet)

    async def main() -> None:
        contexts = [mx.cpu(i, worker="process") for i in range(3)]
        mod = mx.Module(dropout_net(), context=contexts)
        await mod.bind([("data", (BATCH, 5))], [("softmax_label", (BATCH,))])

    mx.run(main)
