"""Small graphs for tests of the executor group."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

import runtime.ops  # noqa: F401  (fills the table of operators)
from runtime.context import DeviceId
from runtime.executor.group import GroupSpec, InputSpec, Updater
from runtime.graph import registry
from runtime.graph.attributes import parse
from runtime.graph.ir import Entry, Graph, Node

Array = NDArray[Any]


def variable(name: str) -> Entry:
    return Entry(Node(name))


def apply(operator: str, name: str, *inputs: Entry, **attributes: Any) -> Entry:
    """A node made from an operator's name and attributes."""
    op = registry.get(operator)
    text = {key: str(value) for key, value in attributes.items()}
    parsed: Any = parse(op.attributes, text, operator)
    return Entry(Node(name, op, inputs, text, parsed))


def mlp(*, hidden: int = 5, classes: int = 3, batch_norm: bool = False) -> Graph:
    """Two dense layers under a softmax loss."""
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
    x = apply("Activation", "relu", x, act_type="tanh")
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
    batch_norm = options.pop("batch_norm", False)
    graph = mlp(batch_norm=batch_norm)
    inputs = ("data", "softmax_label")
    parameters = [n.name for n in graph.arguments if n.name not in inputs]
    return GroupSpec(
        graph,
        where,
        options.pop("workload", (1.0,) * len(where)),
        (InputSpec("data", (batch, features)),),
        (InputSpec("softmax_label", (batch,)),),
        gradients={name: request for name in parameters},
        **options,
    )


def batch_of(spec: GroupSpec, seed: int = 0) -> dict[str, Array]:
    """Random inputs for a group over `mlp`."""
    random = np.random.RandomState(seed)
    rows, features = spec.data[0].shape
    return {
        "data": random.randn(rows, features).astype(np.float32),
        "softmax_label": random.randint(0, 3, rows).astype(np.float32),
    }


class Sgd:
    """Numbers of SGD with momentum that change with every step."""

    def __init__(self, spec: GroupSpec, lr: float = 0.1) -> None:
        inputs = {i.name for i in spec.inputs}
        names = [n.name for n in spec.graph.arguments if n.name not in inputs]
        self.count = 0
        self.lr = lr
        self.names = tuple(names)
        self.updater = Updater(
            "sgd", self.names, ("momentum",), hyper=self.hyper, revert=self.revert
        )

    def hyper(self) -> NDArray[np.float64]:
        self.count += 1
        row = [self.lr / self.count, 0.01, 1.0, -1.0, 0.9]
        return np.tile(row, (len(self.names), 1))

    def revert(self) -> None:
        self.count -= 1
