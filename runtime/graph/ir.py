"""The graph: immutable nodes that refer to the outputs of earlier nodes.

A node is a variable (no operator) or one application of a registered operator.
Edges point from a node to what it reads, so that a graph is only a tuple of
output entries; everything else follows by walking.

Next: `runtime.graph.request`, and `runtime.graph.registry` for what an operator is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from runtime.errors import GraphError
from runtime.graph.registry import Operator

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Entry:
    """One output of one node."""

    node: Node
    index: int = 0

    @property
    def name(self) -> str:
        """MXNet's output name: `fc_output`, `split_output1`; a variable's own name."""
        return self.node.output_names[self.index]


@dataclass(frozen=True, eq=False, slots=True)
class Node:
    """A variable or an operator application; compared by identity.

    Attributes:
        name: Unique within a bound graph.
        operator: None for a variable.
        inputs: What the node reads, auxiliary states last.
        text: All attributes as MXNet's strings, the hidden `__x__` ones included.
        attributes: The operator's own attributes, parsed; None for a variable.
    """

    name: str
    operator: Operator | None = None
    inputs: tuple[Entry, ...] = ()
    text: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    attributes: Any = None

    @property
    def is_variable(self) -> bool:
        """Whether it is an argument or auxiliary state, not an operator."""
        return self.operator is None

    @property
    def output_names(self) -> tuple[str, ...]:
        """Names of all outputs, hidden ones included."""
        if self.operator is None:
            return (self.name,)
        names = self.operator.output_names(self.attributes)
        return tuple(f"{self.name}_{name}" for name in names)

    @property
    def visible_outputs(self) -> int:
        """How many outputs a user sees (BatchNorm: 1 of 3)."""
        if self.operator is None:
            return 1
        return self.operator.visible_outputs(self.attributes)

    @property
    def auxiliary_inputs(self) -> tuple[Entry, ...]:
        """The inputs that are auxiliary states of this node."""
        if self.operator is None:
            return ()
        count = len(self.operator.auxiliary_names(self.attributes))
        return self.inputs[len(self.inputs) - count :]


@dataclass(frozen=True, eq=False)
class Graph:
    """A tuple of outputs, with its nodes in MXNet's depth-first order."""

    outputs: tuple[Entry, ...]
    nodes: tuple[Node, ...] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "nodes", tuple(walk(self.outputs)))

    @property
    def auxiliaries(self) -> tuple[Node, ...]:
        """Variables that some operator keeps as auxiliary state, in node order."""
        held = {e.node for n in self.nodes for e in n.auxiliary_inputs}
        return tuple(n for n in self.nodes if n in held)

    @property
    def arguments(self) -> tuple[Node, ...]:
        """Variables that are not auxiliary states, in node order."""
        held = {e.node for n in self.nodes for e in n.auxiliary_inputs}
        return tuple(n for n in self.nodes if n.is_variable and n not in held)

    @property
    def output_names(self) -> tuple[str, ...]:
        """Names of the outputs, in order."""
        return tuple(entry.name for entry in self.outputs)

    def check_names(self) -> None:
        """Refuse two nodes of one name: binding goes by name.

        Raises:
            GraphError: naming the first name that stands twice.
        """
        seen: set[str] = set()
        for node in self.nodes:
            if node.name in seen:
                raise GraphError(
                    f"two nodes are named `{node.name}`; names must be unique in a "
                    "graph that is bound: rename one of them"
                )
            seen.add(node.name)


def walk(outputs: Sequence[Entry]) -> Iterator[Node]:
    """Yield every node below `outputs` once, inputs before users (post-order)."""
    done: set[Node] = set()
    stack: list[tuple[Node, int]] = [(e.node, 0) for e in reversed(outputs)]
    while stack:
        node, position = stack.pop()
        if node in done:
            continue
        if position < len(node.inputs):
            stack.append((node, position + 1))
            stack.append((node.inputs[position].node, 0))
        else:
            done.add(node)
            yield node
