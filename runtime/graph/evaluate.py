"""A graph run at once, node by node, by the NumPy definitions.

For single operators on arrays that are there (`mx.nd`); what trains is compiled.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtime.errors import GraphError
from runtime.graph.infer import infer
from runtime.graph.ir import Entry, Graph
from runtime.graph.registry import Mode, RandomSource

Array = NDArray[Any]


def evaluate(
    graph: Graph,
    values: Mapping[str, Array],
    random: Callable[[int], RandomSource] | None = None,
) -> list[Array]:
    """The graph's outputs, in inference mode.

    Args:
        graph: The graph.
        values: The array of every variable, by name.
        random: Gives the numbers of the node at a position.

    Raises:
        GraphError: a variable has no value.
        ShapeError: shapes or dtypes contradict each other.
    """
    missing = [n.name for n in graph.nodes if n.is_variable and n.name not in values]
    if missing:
        raise GraphError(f"no array was given for {', '.join(missing)}")
    inference = infer(
        graph,
        {name: array.shape for name, array in values.items()},
        {name: array.dtype.name for name, array in values.items()},
    )
    known: dict[Entry, Array] = {}
    for position, node in enumerate(graph.nodes):
        if node.operator is None:
            known[Entry(node)] = values[node.name]
            continue
        entries = [Entry(node, i) for i in range(len(node.output_names))]
        outputs = [np.empty(inference.shapes[e], inference.dtypes[e]) for e in entries]
        inputs = [known[entry] for entry in node.inputs]
        state = None
        if node.operator.state is not None:
            state = node.operator.state(node.attributes, inputs, "cpu(0)")
        source = None
        if node.operator.is_random and random is not None:
            source = random(position)
        mode = Mode(is_train=False, random=source, state=state)
        node.operator.forward(node.attributes, inputs, outputs, mode)
        known.update(zip(entries, outputs, strict=True))
    return [known[entry] for entry in graph.outputs]
