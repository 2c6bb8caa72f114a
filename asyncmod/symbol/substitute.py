"""Calling a symbol: its variables replaced by other symbols."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from asyncmod.errors import ArgumentTypeError
from asyncmod.symbol.compose import rebuild
from asyncmod.symbol.describe import shortened
from runtime.errors import GraphError
from runtime.graph.ir import Entry, Graph, Node

if TYPE_CHECKING:
    from asyncmod.symbol.symbol import Symbol


def substitute(
    graph: Graph,
    positional: Sequence[Symbol],
    named: Mapping[str, Symbol],
    name: str | None = None,
) -> tuple[Entry, ...]:
    """Replace variables of a graph; see `Symbol.__call__`."""
    variables = [node for node in graph.nodes if node.is_variable]
    entries = _replacements(variables, positional, named)
    first = graph.outputs[0].node

    def replacement(node: Node, inputs: tuple[Entry, ...]) -> list[Entry] | None:
        if node in entries:
            return [entries[node]]
        if name is None or node is not first:
            return None
        renamed = replace(node, name=name, inputs=inputs)
        return [Entry(renamed, index) for index in range(len(node.output_names))]

    return rebuild(graph.outputs, replacement)


def _replacements(
    variables: Sequence[Node],
    positional: Sequence[Symbol],
    named: Mapping[str, Symbol],
) -> dict[Node, Entry]:
    if positional and named:
        raise ArgumentTypeError(
            "compose only accepts input symbols either by position or by name, not both"
        )
    if len(positional) > len(variables):
        raise GraphError(
            f"the symbol has {len(variables)} inputs, but {len(positional)} were given"
        )
    present = [node.name for node in variables]
    for name in named:
        if name not in present:
            raise GraphError(
                f"the symbol has no input `{name}`; its inputs are: "
                f"{shortened(present, name)}"
            )
    for symbol in (*positional, *named.values()):
        if not hasattr(symbol, "entry"):
            raise ArgumentTypeError(f"inputs must be symbols, not {symbol!r}")
    by_position = zip(variables, (s.entry for s in positional), strict=False)
    by_name = ((n, named[n.name].entry) for n in variables if n.name in named)
    return {**dict(by_position), **dict(by_name)}
