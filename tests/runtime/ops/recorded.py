"""Operators on arrays beside what MXNet 1.9.1 made of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from runtime.graph.attributes import to_text
from runtime.graph.ir import Entry, Graph, Node
from tests.runtime.ops.interpreter import Pass, backward, forward, node

GOLDEN = Path(__file__).parents[2] / "golden"
# Operator, inputs, attributes.
Case = tuple[str, list[Any], dict[str, Any]]


def run(operator: str, *inputs: Any, **attributes: Any) -> Pass:
    """Apply an operator; its inputs are the variables in0, in1, ..."""
    text = {name: to_text(value) for name, value in attributes.items()}
    variables = [Entry(Node(f"in{i}")) for i in range(len(inputs))]
    made = node("op", operator, variables, **text)
    outputs = tuple(Entry(made, i) for i in range(len(made.output_names)))
    values = {f"in{i}": np.asarray(array) for i, array in enumerate(inputs)}
    return forward(Graph(outputs), values, True, 0)


def check(
    file: str, name: str, case: Case, outputs: float = 1e-9, gradients: float = 1e-8
) -> None:
    """Outputs and gradients are those of a golden file, in double precision.

    Args:
        file: Its name; gradients of all outputs, by numbers from -1 to 2, lie there
            where MXNet has some.
        name: The case's.
        case: The case.
        outputs: The relative tolerance, for both.
        gradients: That of gradients.
    """
    operator, inputs, attributes = case
    with np.load(GOLDEN / file) as golden:
        done = run(operator, *inputs, **attributes)
        heads = []
        for i, output in enumerate(done.outputs):
            want = golden[f"{name}/output{i}"]
            assert output.shape == want.shape
            np.testing.assert_allclose(output, want, rtol=outputs, atol=1e-12)
            heads.append(np.linspace(-1, 2, output.size).reshape(output.shape))
        names = {f"in{i}" for i in range(len(inputs))}
        grads = backward(done, heads, names)
        for i in range(len(inputs)):
            if f"{name}/gradient{i}" not in golden:
                continue
            want = golden[f"{name}/gradient{i}"]
            np.testing.assert_allclose(
                grads[f"in{i}"], want, rtol=gradients, atol=1e-11
            )
