"""Trainings that are interrupted and resumed: what each is made of.

`train(scenario, prefix, ...)` is one run of the script that a user would start again.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import scipy.sparse

import asyncmod as mx

ROWS, COLUMNS, CLASSES = 22, 4, 3
EPOCHS = 2


def data() -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    generator = np.random.default_rng(5)
    rows = generator.standard_normal((ROWS, COLUMNS)).astype(np.float32)
    return rows, generator.integers(0, CLASSES, ROWS).astype(np.float32)


def perceptron(dropout: float = 0.4) -> Any:
    net = mx.sym.FullyConnected(mx.sym.var("data"), num_hidden=8, name="fc1")
    net = mx.sym.Dropout(mx.sym.Activation(net, act_type="tanh"), p=dropout)
    net = mx.sym.FullyConnected(net, num_hidden=CLASSES, name="fc2")
    return mx.sym.SoftmaxOutput(net, name="softmax")


def normalized(dropout: float = 0.0) -> Any:
    net = mx.sym.FullyConnected(mx.sym.var("data"), num_hidden=8, name="fc1")
    net = mx.sym.BatchNorm(net, fix_gamma=False, name="norm")
    net = mx.sym.Activation(net, act_type="relu")
    if dropout:
        net = mx.sym.Dropout(net, p=dropout)
    net = mx.sym.FullyConnected(net, num_hidden=CLASSES, name="fc2")
    return mx.sym.SoftmaxOutput(net, name="softmax")


def grouped() -> Any:
    with mx.AttrScope(ctx_group="first"):
        net = mx.sym.FullyConnected(mx.sym.var("data"), num_hidden=8, name="fc1")
        net = mx.sym.Dropout(mx.sym.BatchNorm(net, name="norm"), p=0.3)
    net = mx.sym.FullyConnected(net, num_hidden=CLASSES, name="fc2")
    return mx.sym.SoftmaxOutput(net, name="softmax")


def iterator(**options: Any) -> Any:
    return mx.io.NDArrayIter(*data(), batch_size=4, **{"shuffle": True, **options})


def devices(count: int) -> list[mx.Context]:
    return [mx.reference(i) for i in range(count)]


def workers(count: int) -> list[mx.Context]:
    return [mx.cpu(i, worker="process") for i in range(count)]


def sentences() -> Any:
    generator = np.random.default_rng(6)
    lists = [
        [int(w) for w in generator.integers(1, 6, length)]
        for length in generator.integers(2, 7, 30)
    ]
    return mx.rnn.BucketSentenceIter(lists, 4, [3, 6], invalid_label=0)


def bucket(length: int) -> Any:
    net = mx.sym.Embedding(mx.sym.var("data"), input_dim=6, output_dim=5, name="embed")
    net = mx.sym.Dropout(net, p=0.3)
    net = mx.sym.Reshape(mx.sym.sum(net, axis=2), shape=(-1, 1))
    net = mx.sym.FullyConnected(net, num_hidden=6, name="fc")
    label = mx.sym.Reshape(mx.sym.var("softmax_label"), shape=(-1,))
    net = mx.sym.SoftmaxOutput(net, label, name="softmax")
    return net, ["data"], ["softmax_label"]


def chain() -> mx.SequentialModule:
    first = mx.sym.FullyConnected(mx.sym.var("data"), num_hidden=6, name="first")
    first = mx.sym.Dropout(mx.sym.Activation(first, act_type="tanh"), p=0.3)
    last = mx.sym.FullyConnected(mx.sym.var("data"), num_hidden=CLASSES, name="last")
    last = mx.sym.SoftmaxOutput(last, name="softmax")
    sequence = mx.SequentialModule()
    sequence.add(mx.Module(first, label_names=None, context=devices(1)))
    sequence.add(
        mx.Module(last, context=devices(2)), take_labels=True, auto_wiring=True
    )
    return sequence


def recurrent() -> Any:
    """A net whose output `next` is its state for the batch after."""
    net = mx.sym.FullyConnected(mx.sym.var("data"), num_hidden=8, name="fc1")
    net = mx.sym.elemwise_add(net, mx.sym.var("state"), name="sum")
    following = mx.sym.Activation(net, act_type="tanh", name="following")
    net = mx.sym.FullyConnected(following, num_hidden=CLASSES, name="fc2")
    head = mx.sym.SoftmaxOutput(net, name="softmax")
    return mx.sym.Group([head, mx.sym.BlockGrad(following, name="next")])


def recurrent_chain() -> mx.SequentialModule:
    first = mx.sym.FullyConnected(mx.sym.var("data"), num_hidden=6, name="first")
    sequence = mx.SequentialModule()
    sequence.add(mx.Module(first, label_names=None, context=devices(1)))
    sequence.add(
        mx.Module(recurrent(), context=devices(2), state_names=["state"]),
        take_labels=True,
        auto_wiring=True,
    )
    return sequence


def recurrent_bucket(columns: int) -> Any:
    return recurrent(), ["data"], ["softmax_label"]


def of_head() -> Any:
    return mx.metric.create(
        "ce", output_names=["softmax_output"], label_names=["softmax_label"]
    )


async def carry(param: Any) -> None:
    """Give the module its state for the next batch."""
    module = param.locals["self"]
    outputs = await module.get_outputs(merge_multi_context=False)
    await module.set_states(states=[outputs[1]])


async def zero_every_third(param: Any) -> None:
    if param.nbatch % 3 == 2:
        await param.locals["self"].zero_grad()


def words() -> Any:
    generator = np.random.default_rng(7)
    rows = generator.integers(0, 9, (ROWS, 2)).astype(np.float32)
    return mx.io.NDArrayIter(rows, data()[1], batch_size=4, shuffle=True)


def embedded() -> Any:
    net = mx.sym.Embedding(
        mx.sym.var("data"), input_dim=9, output_dim=4, sparse_grad=True, name="embed"
    )
    net = mx.sym.FullyConnected(net, num_hidden=CLASSES, name="fc")
    return mx.sym.SoftmaxOutput(net, name="softmax")


def csr() -> Any:
    """Rows of which half of the elements are missing."""
    rows, labels = data()
    return mx.io.NDArrayIter(
        scipy.sparse.csr_matrix(np.maximum(rows, 0)),
        labels,
        batch_size=4,
        shuffle=True,
        last_batch_handle="discard",
    )


def linear() -> Any:
    """A linear model of CSR data."""
    x = mx.sym.var("data", stype="csr")
    weight = mx.sym.var("weight", shape=(COLUMNS, CLASSES))
    return mx.sym.SoftmaxOutput(mx.sym.dot(x, weight), name="softmax")


class WithoutState:
    """A source that cannot say where it is."""

    provide_data = (mx.io.DataDesc("data", (4, COLUMNS)),)
    provide_label = (mx.io.DataDesc("softmax_label", (4,)),)
    batch_size = 4

    async def __aiter__(self) -> AsyncIterator[mx.io.DataBatch]:
        rows, labels = data()
        for i in range(0, ROWS - 3, 4):
            index = np.arange(i, i + 4)
            yield mx.io.DataBatch([rows[index]], [labels[index]], index=index)


@dataclass(frozen=True)
class Scenario:
    """One training.

    Attributes:
        module: Makes the module.
        batches: Makes the training data.
        options: Further arguments of `fit`.
        bind: Further arguments of `bind`, if it is to be bound before.
        batch_end: Called before the callback of the test.
    """

    module: Callable[[], Any]
    batches: Callable[[], Any]
    options: dict[str, Any] = field(default_factory=dict)
    bind: dict[str, Any] | None = None
    batch_end: Callable[[Any], Any] | None = None


def adam() -> dict[str, Any]:
    scheduler = mx.lr_scheduler.FactorScheduler(step=3, factor=0.7)
    settings = {"learning_rate": 0.05, "wd": 0.01, "lr_scheduler": scheduler}
    return {"optimizer": "adam", "optimizer_params": settings}


def momentum() -> dict[str, Any]:
    settings = {"learning_rate": 0.1, "momentum": 0.9}
    return {"optimizer": "sgd", "optimizer_params": settings}


SCENARIOS: dict[str, Callable[[], Scenario]] = {
    "dropout": lambda: Scenario(
        lambda: mx.Module(perceptron(), context=devices(1)), iterator, adam()
    ),
    "dropout on two devices": lambda: Scenario(
        lambda: mx.Module(perceptron(), context=devices(2)), iterator, adam()
    ),
    "statistics of two devices": lambda: Scenario(
        lambda: mx.Module(normalized(), context=devices(2)),
        lambda: iterator(last_batch_handle="roll_over"),
        momentum(),
    ),
    "native kernels": lambda: Scenario(
        lambda: mx.Module(normalized(), context=[mx.cpu(0), mx.cpu(1)]),
        iterator,
        momentum(),
    ),
    "prefetching": lambda: Scenario(
        lambda: mx.Module(perceptron(), context=devices(2)),
        lambda: mx.io.PrefetchingIter(iterator(), depth=3),
        momentum(),
    ),
    "buckets": lambda: Scenario(
        lambda: mx.BucketingModule(bucket, 6, context=devices(2)), sentences, adam()
    ),
    "a chain of modules": lambda: Scenario(chain, iterator, momentum()),
    "a source without state": lambda: Scenario(
        lambda: mx.Module(perceptron(), context=devices(1)), WithoutState, adam()
    ),
    "several batches per update": lambda: Scenario(
        lambda: mx.Module(perceptron(), context=devices(2)),
        iterator,
        {**adam(), "accumulate": 3},
    ),
    "worker processes": lambda: Scenario(
        lambda: mx.Module(normalized(), context=workers(2)), iterator, momentum()
    ),
    "several batches per update in a worker process": lambda: Scenario(
        lambda: mx.Module(normalized(0.4), context=workers(1)),
        lambda: mx.io.PrefetchingIter(iterator()),
        {**momentum(), "accumulate": 2},
    ),
    "several batches per update in worker processes": lambda: Scenario(
        lambda: mx.Module(normalized(0.4), context=workers(2)),
        iterator,
        {**momentum(), "accumulate": 2},
    ),
    "buckets in worker processes": lambda: Scenario(
        lambda: mx.BucketingModule(bucket, 6, context=workers(2)), sentences, adam()
    ),
    "state inputs": lambda: Scenario(
        lambda: mx.Module(recurrent(), context=devices(2), state_names=["state"]),
        lambda: iterator(last_batch_handle="discard"),
        {**momentum(), "in_flight": 1, "eval_metric": of_head()},
        batch_end=carry,
    ),
    "state inputs of a chain": lambda: Scenario(
        recurrent_chain,
        lambda: iterator(last_batch_handle="discard"),
        {**momentum(), "in_flight": 1, "eval_metric": of_head()},
        batch_end=carry,
    ),
    "state inputs of buckets": lambda: Scenario(
        lambda: mx.BucketingModule(
            recurrent_bucket, COLUMNS, context=devices(2), state_names=["state"]
        ),
        lambda: iterator(last_batch_handle="discard"),
        {**momentum(), "in_flight": 1, "eval_metric": of_head()},
        batch_end=carry,
    ),
    "gradients that add up": lambda: Scenario(
        lambda: mx.Module(perceptron(), context=devices(2)),
        iterator,
        {**momentum(), "in_flight": 1},
        bind={"grad_req": "add"},
        batch_end=zero_every_third,
    ),
    "row-sparse gradients that add up": lambda: Scenario(
        lambda: mx.Module(embedded(), context=[mx.cpu(0), mx.cpu(1)]),
        words,
        {**momentum(), "in_flight": 1},
        bind={"grad_req": "add"},
        batch_end=zero_every_third,
    ),
    "gradients of inputs that add up": lambda: Scenario(
        lambda: mx.Module(perceptron(), context=devices(2)),
        iterator,
        {**momentum(), "in_flight": 1},
        bind={"grad_req": {"data": "add"}, "inputs_need_grad": True},
    ),
    "CSR data": lambda: Scenario(
        lambda: mx.Module(linear(), context=devices(2)), csr, adam()
    ),
    "CSR data in worker processes": lambda: Scenario(
        lambda: mx.Module(linear(), context=workers(2)), csr, adam()
    ),
    "groups of devices": lambda: Scenario(
        lambda: mx.Module(
            grouped(),
            context=devices(2),
            group2ctxs={"first": [mx.reference(2), mx.reference(3)]},
        ),
        iterator,
        momentum(),
    ),
    "MXNet's order": lambda: Scenario(
        lambda: mx.Module(perceptron(), context=devices(2)),
        iterator,
        {**momentum(), "in_flight": 1},
    ),
}


async def train(
    name: str,
    batch_end: Callable[[Any], Any] | None = None,
    *,
    seed: int = 11,
    **options: Any,
) -> dict[str, np.ndarray[Any, Any]]:
    """Run a training to its end.

    Returns:
        Parameters, auxiliary states, and the metric's values in the last epoch; and
        gradients of inputs if they are bound.
    """
    mx.seed(seed)
    scenario = SCENARIOS[name]()
    callbacks = [c for c in (scenario.batch_end, batch_end) if c is not None]
    given = {
        "eval_metric": ["acc", "ce"],
        "batch_end_callback": callbacks,
        "progress": False,
        "num_epoch": EPOCHS,
    }
    batches = scenario.batches()
    async with mx.open_runtime(), scenario.module() as module:
        if scenario.bind is not None:
            await module.bind(
                batches.provide_data, batches.provide_label, **scenario.bind
            )
        history = await module.fit(batches, **{**given, **scenario.options, **options})
        arguments, auxiliaries = await module.get_params()
        gradients = []
        if module.inputs_need_grad:
            gradients = await module.get_input_grads()
    values = {
        name: np.array(value)
        for epoch in history.epochs[-1:]
        for name, value in epoch.items()
        if name.startswith("train-")
    }
    values |= {f"gradient of input {i}": g for i, g in enumerate(gradients)}
    return {**arguments, **auxiliaries, **values}
