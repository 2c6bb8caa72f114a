"""Parts of one graph on different places: which node runs where, and the cut.

A *place* is any value that stands for a device. Nodes go where their `ctx_group` is
mapped to; then the graph is cut into stages, each a graph of its own on one place, in
an order in which every stage reads only from earlier ones. What crosses a cut is an
output of one stage and a variable of others, so that each stage is compiled like any
other graph.

The rules of placement are those of NNVM's pass PlaceDevice (MXNet 1.9.1).

Next: `runtime.executor.wiring`, which connects the stages.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

from runtime.errors import GraphError
from runtime.graph.infer import Inference
from runtime.graph.ir import Entry, Graph, Node

P = TypeVar("P")

GROUP_ATTRIBUTE = "__ctx_group__"


@dataclass(frozen=True, eq=False)
class Stage:
    """A part of a graph that runs on one place.

    Attributes:
        level: How many cuts lie before it.
        place: Where it runs.
        graph: Its nodes; its outputs are what it sends.
        sent: What leaves it, entries of the whole graph, as `graph.outputs` has them.
        received: What it reads from other stages, entries of the whole graph with the
            names of the variables that stand for them in `graph`.
        origin: Each entry of `graph` as an entry of the whole graph.
    """

    level: int
    place: object
    graph: Graph
    sent: tuple[Entry, ...]
    received: Mapping[Entry, str]
    origin: Mapping[Entry, Entry]

    def infer(self, whole: Inference) -> Inference:
        """Shapes and dtypes, from those of the whole graph."""
        return Inference(
            {entry: whole.shapes[source] for entry, source in self.origin.items()},
            {entry: whole.dtypes[source] for entry, source in self.origin.items()},
        )


def place_nodes(graph: Graph, groups: Mapping[str, P], default: P) -> dict[Node, P]:
    """Where every node runs, and every variable lives.

    A node with a group goes to its place. Other variables live at the default place,
    other operators run where their first input comes from. An auxiliary state lives
    with its operator in any case. Without any groups all is at the default place.

    Raises:
        GraphError: a group without a place, or an auxiliary state of two places.
    """
    places: dict[Node, P] = {}
    for node in graph.nodes:
        group = node.text.get(GROUP_ATTRIBUTE)
        if group is not None and groups:
            if group not in groups:
                raise GraphError(
                    f"node `{node.name}` is in the context group `{group}`, which has "
                    f"no context; there are contexts for {', '.join(groups)}"
                )
            places[node] = groups[group]
        elif node.is_variable or not node.inputs:
            places[node] = default
        else:
            places[node] = places[node.inputs[0].node]
    users: dict[Node, Node] = {}
    for node in graph.nodes:
        for entry in node.auxiliary_inputs:
            other = users.setdefault(entry.node, node)
            if places[other] != places[node]:
                raise GraphError(
                    f"the auxiliary state `{entry.name}` is kept by `{other.name}` on "
                    f"{places[other]} and by `{node.name}` on {places[node]}: use it "
                    "in one context group only"
                )
            places[entry.node] = places[node]
    return places


def cut(
    graph: Graph,
    places: Mapping[Node, P],
    inputs: Collection[str],
    spaces: Mapping[P, str],
) -> tuple[Stage, ...]:
    """Cut a graph into stages.

    A stage holds all operators of one place with equally many cuts before them: as few
    stages as the order allows.

    Args:
        graph: The whole graph.
        places: See `place_nodes`.
        inputs: Variables that every stage gets by itself (data, labels, states).
        spaces: The memory space of each place. A parameter is one variable in all
            stages of its space, and is sent to stages of others.
    """
    return _Cutter(graph, places, inputs, spaces).stages()


class _Cutter(Generic[P]):
    def __init__(
        self,
        graph: Graph,
        places: Mapping[Node, P],
        inputs: Collection[str],
        spaces: Mapping[P, str],
    ) -> None:
        self._graph = graph
        self._places = places
        self._inputs = inputs
        self._spaces = spaces
        self._levels: dict[Node, int] = {}
        for node in graph.nodes:
            before = [e.node for e in node.inputs if self._is_sent(e.node, node)]
            within = [e.node for e in node.inputs if e.node not in before]
            levels = [self._levels[n] + 1 for n in before]
            levels += [self._levels[n] for n in within]
            self._levels[node] = max(levels, default=0)

    def stages(self) -> tuple[Stage, ...]:
        order = {p: i for i, p in enumerate(dict.fromkeys(self._places.values()))}
        nodes: dict[tuple[int, P], list[Node]] = {}
        sent: dict[tuple[int, P], dict[Entry, None]] = {}
        for node in self._graph.nodes:
            if not node.is_variable:
                nodes.setdefault(self._key(node), []).append(node)
        for entry in self._crossing():
            key = self._key(entry.node)
            nodes.setdefault(key, [])
            sent.setdefault(key, {})[entry] = None
        keys = sorted(nodes, key=lambda key: (key[0], order[key[1]]))
        return tuple(self._stage(key, nodes[key], tuple(sent[key])) for key in keys)

    def _key(self, node: Node) -> tuple[int, P]:
        return self._levels[node], self._places[node]

    def _crossing(self) -> Iterator[Entry]:
        """What stages send: to other stages, and outputs of the graph."""
        for node in self._graph.nodes:
            for entry in node.inputs:
                if self._is_received(entry.node, node):
                    yield entry
        yield from self._graph.outputs

    def _is_sent(self, source: Node, node: Node) -> bool:
        """Whether a value goes from one place to another."""
        if self._places[source] == self._places[node]:
            return False
        return not source.is_variable or self._is_foreign(source, node)

    def _is_received(self, source: Node, node: Node) -> bool:
        """Whether a node reads a value that another stage makes."""
        if source.is_variable:
            return self._is_foreign(source, node)
        return self._key(source) != self._key(node)

    def _is_foreign(self, variable: Node, node: Node) -> bool:
        if variable.name in self._inputs:
            return False
        home, here = self._places[variable], self._places[node]
        return self._spaces[home] != self._spaces[here]

    def _stage(
        self, key: tuple[int, P], nodes: list[Node], sent: tuple[Entry, ...]
    ) -> Stage:
        level, place = key
        made: dict[Node, Node] = {}  # nodes of the whole graph: those of the stage
        received: dict[Entry, Node] = {}
        for node in nodes:
            entries = []
            for entry in node.inputs:
                if self._is_received(entry.node, node):
                    name = f"@{entry.node.name}.{entry.index}"
                    source = received.setdefault(entry, Node(name))
                    entries.append(Entry(source))
                else:
                    source = made.setdefault(entry.node, entry.node)
                    entries.append(Entry(source, entry.index))
            made[node] = replace(node, inputs=tuple(entries))
        for entry in sent:
            made.setdefault(entry.node, entry.node)
        origin = {
            Entry(new, i): Entry(old, i)
            for old, new in made.items()
            for i in range(len(old.output_names))
        }
        origin |= {Entry(node): entry for entry, node in received.items()}
        return Stage(
            level,
            place,
            Graph(tuple(Entry(made[e.node], e.index) for e in sent)),
            sent,
            {entry: node.name for entry, node in received.items()},
            origin,
        )
