"""What the compiler is asked for.

Next: `runtime.graph.compile`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from runtime.errors import GraphError
from runtime.graph.build import Native
from runtime.graph.infer import Inference
from runtime.graph.ir import Graph, Shape
from runtime.graph.plan import Layout

GradientRequest = Literal["write", "add", "null"]


@dataclass(frozen=True)
class Request:
    """What to compile.

    Attributes:
        graph: The graph, over this device's share of the batch.
        inputs: Arguments fed by the user (data, labels, states); every other argument
            is a parameter.
        shapes: Shapes of the inputs, and of other arguments if they are known.
        dtypes: NumPy dtype names of arguments; float32 where nothing is said.
        gradients: Request per argument; what is not named is "null".
        is_train: A training plan (forward, backward, commit) or an inference plan.
        parameters, auxiliaries: Layouts to share with other plans of the module; None
            to make them.
        native: What the device offers besides NumPy definitions.
        guards: Bytes of guard zone around every tensor (debug mode).
        inference: Shapes and dtypes if they are known already, as those of a stage are
            from the whole graph; then `shapes` and `dtypes` are not looked at.
        positions: Position of each node in the whole graph, by name, if this is a stage
            of it: part of the key of random numbers.
        csr: Inputs that come as CSR matrices.
        gradient_rows: Layout, to share with other plans, of the row numbers of
            row-sparse gradients; no other gradients are row-sparse then.
    """

    graph: Graph
    inputs: tuple[str, ...]
    shapes: Mapping[str, Shape]
    dtypes: Mapping[str, str] = field(default_factory=dict)
    gradients: Mapping[str, GradientRequest] = field(default_factory=dict)
    is_train: bool = False
    parameters: Layout | None = None
    auxiliaries: Layout | None = None
    native: Native | None = None
    guards: int = 0
    inference: Inference | None = None
    positions: Mapping[str, int] | None = None
    csr: frozenset[str] = frozenset()
    gradient_rows: Layout | None = None


def parameter_names(graph: Graph, inputs: Iterable[str]) -> tuple[str, ...]:
    """Arguments that are not inputs, in MXNet's argument order."""
    given = frozenset(inputs)
    return tuple(n.name for n in graph.arguments if n.name not in given)


def check_names(request: Request) -> None:
    """Refuse names that the graph does not have.

    Raises:
        GraphError: naming the first one, and the rule.
    """
    arguments = {node.name for node in request.graph.arguments}
    for name in request.inputs:
        if name not in arguments:
            raise GraphError(
                f"input `{name}` is not an argument of the graph; "
                f"its arguments are {', '.join(sorted(arguments))}"
            )
    for name, wish in request.gradients.items():
        if name not in arguments:
            raise GraphError(f"gradient of `{name}` requested, but it is no argument")
        if wish not in ("write", "add", "null"):
            raise GraphError(
                f"gradient request of `{name}` (={wish!r}) must be "
                "'write', 'add' or 'null'"
            )
