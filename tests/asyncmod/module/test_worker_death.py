"""Workers that die in the middle of something: nothing is lost, all bits are equal."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from structlog.testing import capture_logs

import asyncmod as mx
from tests.asyncmod.module.nets import CLASSES, FEATURES, aux_values, rows, same, values
from tests.runtime.devices.process.sabotage import Point, sabotaged

BATCH = 8
Train = Callable[[mx.Module], Awaitable[None]]


def net() -> mx.symbol.Symbol:
    """Batch norm and dropout between dense layers; two native rows per parameter."""
    net = mx.sym.FullyConnected(mx.sym.Variable("data"), num_hidden=6, name="fc1")
    net = mx.sym.BatchNorm(net, name="bn")
    net = mx.sym.Dropout(mx.sym.Activation(net, act_type="tanh"), p=0.3, name="drop")
    net = mx.sym.FullyConnected(net, num_hidden=CLASSES, name="fc2")
    return mx.sym.SoftmaxOutput(net, name="softmax")


def batches() -> list[mx.io.DataBatch]:
    return [
        mx.io.DataBatch([data], [label])
        for data, label in (rows(BATCH, seed) for seed in range(4))
    ]


async def by_steps(mod: mx.Module) -> None:
    for batch in batches():
        await mod.step(batch)


async def by_hand(mod: mx.Module) -> None:
    """Gradients of two batches are added up before each update."""
    for i, batch in enumerate(batches()):
        await mod.forward(batch)
        await mod.backward()
        if i % 2:
            await mod.update()
            await mod.zero_grad()


async def train(
    contexts: list[mx.Context], how: Train, optimizer: str = "sgd", **settings: Any
) -> Any:
    """Everything that a training leaves: parameters, states, gradients, outputs."""
    mx.seed(5)
    symbol = net()
    added = "add" if how is by_hand else "write"
    async with mx.Module(symbol, context=contexts, **settings) as mod:
        await mod.bind(
            [("data", (BATCH, FEATURES))],
            [("softmax_label", (BATCH,))],
            grad_req=added,
            inputs_need_grad=True,
        )
        await mod.init_params(arg_params=values(symbol), aux_params=aux_values(symbol))
        parameters = {"learning_rate": 0.1}
        if optimizer == "sgd":
            parameters["momentum"] = 0.9
        await mod.init_optimizer(optimizer=optimizer, optimizer_params=parameters)
        await how(mod)
        arguments, auxiliaries = await mod.get_params()
        return (
            arguments,
            auxiliaries,
            await mod.get_grads(),
            await mod.get_input_grads(),
            await mod.get_outputs(),
        )


def devices(kind: Callable[..., mx.Context], worker: str) -> list[mx.Context]:
    return [kind(i, worker=worker) for i in range(2)]


def survives(
    point: Point,
    how: Train = by_steps,
    kind: Callable[..., mx.Context] = mx.cpu,
    optimizer: str = "sgd",
) -> None:
    """Train on threads, and on processes of which one dies there; compare."""

    async def main() -> None:
        expected = await train(devices(kind, "thread"), how, optimizer)
        with sabotaged(point), capture_logs() as lines:
            got = await train(devices(kind, "process"), how, optimizer)
        deaths = [line["event"] for line in lines if "takes over" in line["event"]]
        assert len(deaths) == len(point.rows)
        assert all("was killed by SIGKILL" in death for death in deaths)
        assert same(got, expected)

    mx.run(main, workers=mx.WorkerPolicy(restarts=len(point.rows)))


# In each life at another row; the net is such that device 0 has 2 rows, device 1 has 6.
@pytest.mark.parametrize(
    ("index", "rows"),
    [
        (0, ("saving", "saved", 0, 1, 2, "ended")),
        (1, (0, 1, 2, 3, 4, 5, 6)),
        (1, (6, 6, 6)),
    ],
)
def test_killed_at_every_row_of_the_update(
    index: int, rows: tuple[int | str, ...]
) -> None:
    survives(Point("update", rows, index=index))


def test_killed_at_every_row_of_an_update_by_definitions() -> None:
    survives(Point("prepare", (0, 1, 2)), kind=mx.reference, optimizer="adam")
    rows = ("saving", "saved", 0, 1, 5, 6, "ended")
    survives(Point("update", rows), kind=mx.reference, optimizer="adam")


def test_killed_at_every_row_of_the_commit_of_statistics() -> None:
    survives(Point("commit", ("saving", "saved", 0, 1, 2, "ended"), index=1))


def test_killed_in_forward() -> None:
    survives(Point("forward", (0, 3, 6), index=1))


def test_killed_in_backward() -> None:
    survives(Point("backward", (0, 5, 11)))
    survives(Point("step", ("ended",)))


def test_killed_between_the_forwards_and_backwards_of_sums() -> None:
    survives(Point("forward", (0, 6, "ended"), launch=2), by_hand)


def test_killed_while_gradients_are_added_up() -> None:
    survives(Point("backward", ("saving", "saved", 1, 6, 11, "ended")), by_hand)
    survives(Point("backward", (6,), launch=2), by_hand)


def test_killed_in_the_update_of_sums() -> None:
    survives(Point("update", (1, 2)), by_hand)
