"""Graphs in context groups, and groups of executors over them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

import tests.runtime.executor.fragile  # noqa: F401  (fills the table of operators)
from runtime.context import DeviceId
from runtime.executor.group import ExecutorGroup, GroupSpec, InputSpec
from runtime.graph.ir import Entry, Graph, Node
from runtime.graph.passes.stages import GROUP_ATTRIBUTE
from tests.runtime.executor.nets import Arrays, Sgd, apply, dense, snapshot, variable

BATCH, CHANNELS, SIDE = 6, 3, 5


def in_groups(graph: Graph, prefixes: Mapping[str, str]) -> Graph:
    """The graph with every node in the group of the longest prefix of its name."""
    made: dict[Node, Node] = {}
    for node in graph.nodes:
        found = [p for p in prefixes if node.name.startswith(p)]
        text = dict(node.text)
        if found:
            text[GROUP_ATTRIBUTE] = prefixes[max(found, key=len)]
        inputs = tuple(Entry(made[e.node], e.index) for e in node.inputs)
        made[node] = replace(node, inputs=inputs, text=text)
    return Graph(tuple(Entry(made[e.node], e.index) for e in graph.outputs))


def chain() -> Graph:
    """Two groups, one after the other."""
    x = dense("a_fc", variable("data"), 5)
    x = apply("Activation", "a_tanh", x, act_type="tanh")
    x = apply("Dropout", "b_drop", x, p=0.4)
    x = dense("b_fc", x, 3)
    x = apply("SoftmaxOutput", "b_softmax", x, variable("softmax_label"))
    return in_groups(Graph((x,)), {"a_": "a", "b_": "b"})


def back_and_forth() -> Graph:
    """Convolutions in a, b and a, with shortcuts across the cuts in both directions."""
    x = unit("a1", variable("data"))
    y = unit("b1", x)
    z = apply("elemwise_add", "a2_sum", y, x)
    z = unit("a2", z)
    w = apply("elemwise_add", "b2_sum", z, y)
    w = unit("b2", w)
    top = apply("elemwise_add", "a3_sum", apply("elemwise_add", "a3_both", w, z), x)
    top = apply("Dropout", "a3_drop", top, p=0.3)
    top = dense("b3_fc", apply("Flatten", "b3_flat", top), 3)
    top = apply("SoftmaxOutput", "a4_softmax", top, variable("softmax_label"))
    return in_groups(Graph((top,)), {"a": "a", "b": "b"})


def unit(name: str, x: Entry) -> Entry:
    """Convolution, BatchNorm, rectifier."""
    x = apply(
        "Convolution",
        f"{name}_conv",
        x,
        variable(f"{name}_conv_weight"),
        variable(f"{name}_conv_bias"),
        kernel=(3, 3),
        pad=(1, 1),
        num_filter=CHANNELS,
    )
    states = ("gamma", "beta", "moving_mean", "moving_var")
    x = apply(
        "BatchNorm", f"{name}_bn", x, *(variable(f"{name}_bn_{s}") for s in states)
    )
    return apply("Activation", f"{name}_relu", x, act_type="relu")


def shared_weight() -> Graph:
    """One weight, of no group, in three stages; data in two."""
    data, weight = variable("data"), variable("weight")

    def layer(name: str, x: Entry) -> Entry:
        bias = variable(f"{name}_bias")
        return apply("FullyConnected", name, x, weight, bias, num_hidden=4)

    x = apply("Activation", "a_tanh", layer("a_fc", data), act_type="tanh")
    y = layer("b_fc", apply("elemwise_mul", "b_product", x, data))
    y = apply("BlockGrad", "b_block", apply("elemwise_add", "b_sum", x, y))
    z = layer("a_top", apply("elemwise_add", "a_sum", x, layer("b_fc2", y)))
    top = apply("SoftmaxOutput", "b_softmax", z, variable("softmax_label"))
    return in_groups(Graph((top,)), {"a_": "a", "b_": "b"})


def fragile_chain() -> Graph:
    """`chain` with a fragile operator in each group, and a parallel branch in a."""
    data = variable("data")
    x = dense("a_fc", data, 5)
    x = apply("_test_fragile", "a_fragile", x)
    y = dense("b_fc", x, 3)
    y = apply("_test_fragile", "b_fragile", y)
    y = apply("elemwise_add", "a2_sum", y, dense("a2_fc", data, 3))
    top = apply("SoftmaxOutput", "b2_softmax", y, variable("softmax_label"))
    return in_groups(Graph((top,)), {"a": "a", "b": "b"})


def two_outputs() -> Graph:
    """A loss in b, and an output of a that is none and is used in b."""
    x = dense("a_fc", variable("data"), 4)
    y = dense("b_fc", x, 3)
    loss = apply("SoftmaxOutput", "b_softmax", y, variable("softmax_label"))
    return in_groups(Graph((loss, x)), {"a_": "a", "b_": "b"})


NETS: dict[str, Callable[[], Graph]] = {
    "chain": chain,
    "back_and_forth": back_and_forth,
    "shared_weight": shared_weight,
}


def spec_of(
    graph: Graph,
    where: tuple[DeviceId, ...],
    placements: tuple[Mapping[str, DeviceId], ...] = (),
    request: Any = "write",
    **options: Any,
) -> GroupSpec:
    """A group over one of the graphs above; gradients for the data, too."""
    images = any(n.operator and n.operator.name == "Convolution" for n in graph.nodes)
    shape = (BATCH, CHANNELS, SIDE, SIDE) if images else (BATCH, 4)
    names = [n.name for n in graph.arguments if n.name != "softmax_label"]
    return GroupSpec(
        graph,
        where,
        options.pop("workload", (1.0,) * len(where)),
        (InputSpec("data", shape),),
        (InputSpec("softmax_label", (BATCH,)),),
        gradients=dict.fromkeys(names, request),
        placements=placements,
        **options,
    )


async def trained(group: ExecutorGroup, steps: int = 3) -> Arrays:
    """Everything that can be read after some steps."""
    sgd = Sgd(group.spec, spread=0.01)
    for k in range(steps):
        await group.step(inputs_of(group.spec, k), sgd.updater)
    values = await snapshot(group)
    values |= {f"out {k}": a for k, a in enumerate(await group.outputs())}
    values |= {f"grad {n}": a for n, a in (await group.gradients()).items()}
    values |= {f"in {n}": a for n, a in (await group.input_gradients()).items()}
    momentum = await group.read_updater_states(sgd.updater)
    values |= {f"m {n}": a for n, a in momentum["momentum"].items()}
    for name, parts in (await group.device_gradients()).items():
        values |= {f"grad {name} {k}": part for k, part in enumerate(parts)}
    predicted = await group.predict(inputs_of(group.spec, 7))
    return values | {f"predicted {k}": array for k, array in enumerate(predicted)}


def inputs_of(spec: GroupSpec, seed: int = 0) -> Arrays:
    """Random inputs."""
    random = np.random.RandomState(seed)
    return {
        "data": random.randn(*spec.data[0].shape).astype(np.float32),
        "softmax_label": random.randint(0, 3, BATCH).astype(np.float32),
    }


def assert_close(found: Arrays, wanted: Arrays) -> None:
    """Equal but for the rounding of sums that are taken in another order."""
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        np.testing.assert_allclose(
            found[name], value, rtol=1e-4, atol=1e-5, err_msg=name
        )
