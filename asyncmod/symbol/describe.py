"""Symbols in words: a listing of all nodes, and names for error messages."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches

from runtime.graph.ir import Graph

_SHOWN = 10


def debug_text(graph: Graph) -> str:
    """All nodes in order, with inputs and attributes, in MXNet's form."""
    lines = ["Symbol Outputs:"]
    for index, entry in enumerate(graph.outputs):
        lines.append(f"\toutput[{index}]={entry.node.name}({entry.index})")
    for node in graph.nodes:
        if node.operator is None:
            lines.append(f"Variable:{node.name}")
            continue
        lines.append("-" * 20)
        lines.append(f"Op:{node.operator.name}, Name={node.name}")
        lines.append("Inputs:")
        for index, entry in enumerate(node.inputs):
            lines.append(f"\targ[{index}]={entry.node.name}({entry.index})")
        if node.text:
            lines.append("Attrs:")
            lines.extend(f"\t{key}={value}" for key, value in sorted(node.text.items()))
    return "\n".join(lines) + "\n"


def shortened(names: Sequence[str], like: str | None = None) -> str:
    """Names for a message: all if few, else the first, or those that look alike."""
    if len(names) <= _SHOWN:
        return ", ".join(names)
    close = get_close_matches(like, names, n=_SHOWN) if like else []
    return ", ".join(close or names[:_SHOWN]) + f", ... ({len(names)} in all)"
