"""Small graphs for tests of the executor group."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

import runtime.ops  # noqa: F401  (fills the table of operators)
import tests.runtime.executor.fragile  # noqa: F401  (so does this)
from runtime.actors import current_runtime, open_runtime
from runtime.actors.actor import send
from runtime.actors.command import Command
from runtime.context import DeviceId
from runtime.executor.group import ExecutorGroup, GroupSpec, InputSpec, Updater
from runtime.graph import registry
from runtime.graph.attributes import parse
from runtime.graph.ir import Entry, Graph, Node

Array = NDArray[Any]
Arrays = dict[str, Array]


def variable(name: str) -> Entry:
    return Entry(Node(name))


def apply(operator: str, name: str, *inputs: Entry, **attributes: Any) -> Entry:
    """A node made from an operator's name and attributes."""
    op = registry.get(operator)
    text = {key: str(value) for key, value in attributes.items()}
    parsed: Any = parse(op.attributes, text, operator)
    return Entry(Node(name, op, inputs, text, parsed))


def mlp(
    *,
    hidden: int = 5,
    classes: int = 3,
    batch_norm: bool = False,
    fragile: bool = False,
    dropout: bool = False,
) -> Graph:
    """Two dense layers under a softmax loss, and what else a test asks for."""
    x = variable("data")
    x = dense("fc1", x, hidden)
    if batch_norm:
        x = apply(
            "BatchNorm",
            "bn",
            x,
            variable("bn_gamma"),
            variable("bn_beta"),
            variable("bn_moving_mean"),
            variable("bn_moving_var"),
        )
    x = apply("Activation", "tanh", x, act_type="tanh")
    if fragile:
        x = apply("_test_fragile", "fragile", x)
    if dropout:
        x = apply("Dropout", "dropout", x, p=0.5)
    x = dense("fc2", x, classes)
    return Graph((apply("SoftmaxOutput", "softmax", x, variable("softmax_label")),))


def dense(name: str, x: Entry, hidden: int) -> Entry:
    return apply(
        "FullyConnected",
        name,
        x,
        variable(f"{name}_weight"),
        variable(f"{name}_bias"),
        num_hidden=hidden,
    )


def devices(*names: str) -> tuple[DeviceId, ...]:
    """Such as `devices("reference", "reference")`: indexes count up per kind."""
    seen: dict[str, int] = {}
    made = []
    for name in names:
        index = seen.get(name, 0)
        seen[name] = index + 1
        made.append(DeviceId(name, index))
    return tuple(made)


def mlp_spec(
    where: tuple[DeviceId, ...],
    *,
    batch: int = 8,
    features: int = 4,
    request: Any = "write",
    **options: Any,
) -> GroupSpec:
    """A group over `mlp`."""
    parts = {"hidden", "batch_norm", "fragile", "dropout"} & options.keys()
    graph = mlp(**{name: options.pop(name) for name in parts})
    inputs = ("data", "softmax_label")
    gradients = {n.name: request for n in graph.arguments if n.name not in inputs}
    gradients |= options.pop("gradients", {})
    return GroupSpec(
        graph,
        where,
        options.pop("workload", (1.0,) * len(where)),
        (InputSpec("data", (batch, features)),),
        (InputSpec("softmax_label", (batch,)),),
        gradients=gradients,
        **options,
    )


def batch_of(spec: GroupSpec, seed: int = 0) -> Arrays:
    """Random inputs for a group over `mlp`, or another net of three classes."""
    random = np.random.RandomState(seed)
    shape = spec.data[0].shape
    return {
        "data": random.randn(*shape).astype(np.float32),
        "softmax_label": random.randint(0, 3, shape[0]).astype(np.float32),
    }


def first_values(group: ExecutorGroup, seed: int = 1) -> tuple[Arrays, Arrays]:
    """Parameters and auxiliary states to begin with."""
    random = np.random.RandomState(seed)
    return (
        {
            name: (random.randn(*shape) * 0.5).astype(np.float32)
            for name, shape in group.parameter_shapes.items()
        },
        {
            name: np.full(shape, float(name.endswith("var")), np.float32)
            for name, shape in group.auxiliary_shapes.items()
        },
    )


@asynccontextmanager
async def open_group(
    spec: GroupSpec, shared: ExecutorGroup | None = None
) -> AsyncIterator[ExecutorGroup]:
    """A group with parameters, in the current runtime or in one of its own."""
    async with AsyncExitStack() as stack:
        runtime = current_runtime()
        if runtime is None:
            runtime = await stack.enter_async_context(open_runtime())
        group = await ExecutorGroup.create(spec, runtime, shared)
        try:
            if shared is None:
                await group.write_parameters(*first_values(group))
            yield group
        finally:
            await group.aclose()


async def snapshot(group: ExecutorGroup) -> Arrays:
    """Everything that a step changes, by name."""
    parameters, _ = await group.read_parameters()
    values = dict(parameters)
    for k, auxiliaries in enumerate(await group.read_device_auxiliaries()):
        values |= {f"{name}@{k}": value for name, value in auxiliaries.items()}
    return values


def same(left: Arrays, right: Arrays) -> bool:
    """Whether all arrays are equal bit by bit."""
    return left.keys() == right.keys() and all(
        left[name].tobytes() == right[name].tobytes() for name in left
    )


@contextmanager
def held(group: ExecutorGroup) -> Iterator[None]:
    """Hold all device threads of a group for the body of a `with`."""
    gate = threading.Event()
    crew = group._calls.crew
    command: Command[Any] = Command(
        "hold", [lambda: gate.wait(60)] * len(crew.actors), crew.names
    )
    send(command, crew.actors)
    try:
        yield
    finally:
        gate.set()


class Sgd:
    """Numbers of SGD with momentum that change with every step.

    Each parameter's rate is greater by `spread` than that of the one before.
    """

    def __init__(self, spec: GroupSpec, lr: float = 0.1, spread: float = 0.0) -> None:
        inputs = {i.name for i in spec.inputs}
        names = [n.name for n in spec.graph.arguments if n.name not in inputs]
        self.count = 0
        self.lr = lr
        self.spread = spread
        self.names = tuple(names)
        self.updater = Updater(
            "sgd", self.names, ("momentum",), hyper=self.hyper, revert=self.revert
        )

    def hyper(self) -> NDArray[np.float64]:
        self.count += 1
        row = [self.lr / self.count, 0.01, 1.0, -1.0, 0.9]
        numbers = np.tile(row, (len(self.names), 1))
        numbers[:, 0] += self.spread * np.arange(len(self.names))
        return numbers

    def revert(self) -> None:
        self.count -= 1
