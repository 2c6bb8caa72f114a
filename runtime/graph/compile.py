"""From a graph to a plan: infer, gradient, passes, memory, in one readable line.

Next: `runtime.graph.plan`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from runtime.graph.ir import Graph, Shape
from runtime.graph.plan import Layout, Plan

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
        native: Kernels that the device has; none gives the reference plan.
        guards: Bytes of guard zone around every tensor (debug mode).
    """

    graph: Graph
    inputs: tuple[str, ...]
    shapes: Mapping[str, Shape]
    dtypes: Mapping[str, str] = field(default_factory=dict)
    gradients: Mapping[str, GradientRequest] = field(default_factory=dict)
    is_train: bool = False
    parameters: Layout | None = None
    auxiliaries: Layout | None = None
    native: frozenset[str] = frozenset()
    guards: int = 0


def compile_plan(request: Request) -> Plan:
    """Compile a graph for one device.

    Raises:
        GraphError: two nodes of one name.
        ShapeError: shapes that contradict each other or cannot be inferred.
        GradientError: a gradient is wanted through an operator that has none.
    """
    raise NotImplementedError
