"""The layers of a net, with what both table and drawing show of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod

from asyncmod.errors import ArgumentError, ArgumentTypeError
from asyncmod.symbol import Symbol
from asyncmod.visualization.cost import flops
from runtime.graph.infer import infer_shapes
from runtime.graph.ir import Entry, Node, Shape
from runtime.graph.shapes import is_known

Shapes = Mapping[str, Sequence[int]]
_PARAMETERS = {"weight", "bias", "gamma", "beta", "parameters"}


@dataclass(frozen=True)
class Layer:
    """An operator, or a variable that is fed.

    Attributes:
        node: The node of the graph.
        shape: Of its first output; None if unknown.
        before: The layers whose outputs it reads.
        parameters: How many numbers are trained in it and in no layer before; None if
            that is unknown.
        flops: Floating point operations of its forward for the whole batch; None if
            that is unknown.
    """

    node: Node
    shape: Shape | None
    before: tuple[Node, ...]
    parameters: int | None
    flops: int | None

    @property
    def kind(self) -> str:
        """The operator's name; MXNet's `null` for a variable."""
        return "null" if self.node.operator is None else self.node.operator.name


def layers(symbol: Symbol, shape: Shapes | None, hide_weights: bool) -> list[Layer]:
    """All layers in the order of the graph.

    Args:
        symbol: The net.
        shape: Shapes of its inputs; what follows from them is known.
        hide_weights: Leave out the parameters and states that a layer keeps.

    Raises:
        ArgumentTypeError: `symbol` is not a symbol.
        ArgumentError: `shape` does not suffice to infer the outputs' shapes.
        ShapeError: the shapes contradict each other.
    """
    if not isinstance(symbol, Symbol):
        raise ArgumentTypeError(f"`symbol` must be a Symbol, not {symbol!r}")
    graph = symbol.graph
    inferred = infer_shapes(graph, {n: tuple(s) for n, s in (shape or {}).items()})
    if shape is not None:
        for output in graph.outputs:
            if not is_known(inferred[output]):
                raise ArgumentError(
                    f"Input shape is incomplete: the shape of `{output.name}` does "
                    f"not follow from `shape`, which has {sorted(shape) or 'nothing'}"
                )

    def known(node: Node, output: int = 0) -> Shape | None:
        found = inferred[Entry(node, output)]
        return tuple(n or 0 for n in found) if found and is_known(found) else None

    def cost(node: Node) -> int | None:
        read = [known(entry.node, entry.index) for entry in node.inputs]
        sizes, given = [size for size in read if size is not None], known(node)
        if given is None or len(sizes) < len(read):
            return 0 if node.is_variable else None
        return flops(node, sizes, given)

    hidden: set[Node] = set()
    if hide_weights:
        hidden.update(graph.auxiliaries, *(_parameters(node) for node in graph.nodes))
    counted: set[Node] = set()
    found = []
    for node in graph.nodes:
        if node in hidden:
            continue
        new = [p for p in _parameters(node) if p not in counted]
        counted.update(new)
        sizes = [known(parameter) for parameter in new]
        found.append(
            Layer(
                node,
                known(node),
                tuple(e.node for e in node.inputs if e.node not in hidden),
                None if None in sizes else sum(prod(s) for s in sizes if s is not None),
                cost(node),
            )
        )
    return found


def _parameters(node: Node) -> list[Node]:
    """The variables that stand where an operator has its parameters."""
    if node.operator is None:
        return []
    names = node.operator.input_names(node.attributes)
    return [
        entry.node
        for name, entry in zip(names, node.inputs, strict=True)
        if name in _PARAMETERS and entry.node.is_variable
    ]


def without_batch(shape: Shape | None) -> str:
    """`32x28x28`: the sizes behind the first, or nothing if unknown."""
    return "x".join(str(size) for size in shape[1:]) if shape else ""
