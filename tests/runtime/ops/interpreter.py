"""Runs a graph by its definitions and gradient rules, node by node: what tests need.

Keeps only what `Operator.saved` names, so that a rule that reads more fails.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

import runtime.ops  # noqa: F401  (fills the table)
from runtime.graph import registry
from runtime.graph.attributes import parse
from runtime.graph.infer import infer
from runtime.graph.ir import Entry, Graph, Node
from runtime.graph.registry import Array, Mode
from runtime.ops.random import PhiloxSource


def node(name: str, operator: str, inputs: list[Entry], **attributes: str) -> Node:
    """Apply a registered operator."""
    found = registry.get(operator)
    parsed: Any = parse(found.attributes, attributes, operator)
    return Node(name, found, tuple(inputs), MappingProxyType(attributes), parsed)


def load(path: Path) -> Graph:
    """Read a symbol file of MXNet 1.x."""
    content = json.loads(path.read_text())
    nodes: list[Node] = []
    for row in content["nodes"]:
        text = row.get("attrs", {})
        if row["op"] == "null":
            nodes.append(Node(row["name"], text=MappingProxyType(text)))
        else:
            inputs = [Entry(nodes[i], index) for i, index, *_ in row["inputs"]]
            nodes.append(node(row["name"], row["op"], inputs, **text))
    return Graph(tuple(Entry(nodes[i], index) for i, index, *_ in content["heads"]))


@dataclass
class Pass:
    """One forward, and what its backward needs."""

    graph: Graph
    modes: dict[Node, Mode]
    values: dict[Entry, Array]
    next_auxiliaries: dict[str, Array] = field(default_factory=dict)

    @property
    def outputs(self) -> list[Array]:
        return [self.values[entry] for entry in self.graph.outputs]


def forward(
    graph: Graph, variables: Mapping[str, Array], is_train: bool, seed: int = 0
) -> Pass:
    """Run every node; outputs begin as garbage, so that one left unwritten shows."""
    inference = infer(
        graph,
        {name: array.shape for name, array in variables.items()},
        {name: array.dtype for name, array in variables.items()},
    )
    modes = {
        n: Mode(is_train, PhiloxSource(seed, position, step=0))
        for position, n in enumerate(graph.nodes)
    }
    run = Pass(graph, modes, {})
    for n in graph.nodes:
        if n.operator is None:
            run.values[Entry(n)] = variables[n.name]
            continue
        inputs = [run.values[entry] for entry in n.inputs]
        kept = [array.copy() for array in inputs]
        outputs = [
            _garbage(inference.shapes[entry], inference.dtypes[entry])
            for entry in (Entry(n, i) for i in range(len(n.output_names)))
        ]
        held = [e.node.name for e in n.auxiliary_inputs] if is_train else []
        following = [_garbage(variables[a].shape, variables[a].dtype) for a in held]
        n.operator.forward(n.attributes, inputs, [*outputs, *following], modes[n])
        for before, after in zip(kept, inputs, strict=True):
            np.testing.assert_array_equal(before, after, "the definition wrote inputs")
        run.next_auxiliaries |= dict(zip(held, following, strict=True))
        run.values |= {Entry(n, i): array for i, array in enumerate(outputs)}
    return run


def apply(operator: str, *inputs: Array, is_train: bool = True, **text: Any) -> Pass:
    """Run one operator on arrays; its inputs are the variables x0, x1, ..."""
    names = [f"x{i}" for i in range(len(inputs))]
    applied = node("op", operator, [Entry(Node(name)) for name in names], **text)
    variables = dict(zip(names, inputs, strict=True))
    return forward(Graph((Entry(applied),)), variables, is_train)


def backward(
    run: Pass, heads: Sequence[Array | None], wanted: set[str]
) -> dict[str, Array]:
    """Gradients of the wanted variables; `heads` has one place per output."""
    grads: dict[Entry, Array] = {}
    for entry, head in zip(run.graph.outputs, heads, strict=True):
        if head is not None:
            _add(grads, entry, head)
    for n in reversed(run.graph.nodes):
        if n.operator is None or n.operator.backward is None:
            continue
        p, count = n.attributes, len(n.inputs) - len(n.auxiliary_inputs)
        outputs = [Entry(n, i) for i in range(len(n.output_names))]
        given = [grads.get(entry) for entry in outputs]
        is_head = any(entry in run.graph.outputs for entry in outputs)
        ends = n.operator.ignores_head_gradient(p) and is_head
        if not ends and all(grad is None for grad in given):
            continue
        names = n.operator.input_names(p)
        saved = n.operator.saved_for(p)
        targets = [
            None
            if name in n.operator.no_gradient
            else _garbage(run.values[e].shape, run.values[e].dtype)
            for name, e in zip(names[:count], n.inputs[:count], strict=True)
        ]
        n.operator.backward(
            p,
            given,
            [
                run.values[entry] if i in saved.inputs else None
                for i, entry in enumerate(n.inputs)
            ],
            [
                run.values[entry] if i in saved.outputs else None
                for i, entry in enumerate(outputs)
            ],
            targets,
            run.modes[n],
        )
        for entry, target in zip(n.inputs[:count], targets, strict=True):
            if target is not None:
                _add(grads, entry, target)
    return {
        n.name: grads.get(Entry(n), np.zeros_like(run.values[Entry(n)]))
        for n in run.graph.nodes
        if n.name in wanted
    }


def _garbage(shape: tuple[int, ...], dtype: Any) -> Array:
    return np.full(shape, 77, dtype)


def _add(grads: dict[Entry, Array], entry: Entry, grad: Array) -> None:
    grads[entry] = grads[entry] + grad if entry in grads else grad
