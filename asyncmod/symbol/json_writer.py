"""Symbol JSON as MXNet 1.9.1 writes it, byte for byte."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate

from asyncmod.symbol.compose import rebuild
from asyncmod.symbol.hidden import node_texts
from runtime.graph.ir import Entry, Graph, Node

_MXNET_VERSION = 10901
# MXNet's writer puts longer lists of numbers on lines of their own.
_LONG_LIST = 10
_CASTS = ("amp_cast", "amp_multicast")
_ESCAPES = {ord(c): rf"\u{ord(c):04x}" for c in map(chr, range(32))} | {
    ord("\r"): r"\r",
    ord("\n"): r"\n",
    ord("\t"): r"\t",
    ord("\\"): r"\\",
    ord('"'): r"\"",
}
# Workspaces that MXNet's kernels declare as hidden outputs; ours have none, but the
# file counts them.
_WORKSPACES = {
    "BilinearSampler": 1,
    "CTCLoss": 1,
    "Correlation": 2,
    "Dropout": 1,
    "GridGenerator": 1,
    "GroupNorm": 2,
    "InstanceNorm": 2,
    "L2Normalization": 1,
    "LRN": 1,
    "LayerNorm": 2,
    "ROIPooling": 1,
    "SpatialTransformer": 2,
    "sort": 1,
}
# Operators that hand their gradient rule what MXNet's reads from the auxiliary state.
_OWN_HIDDEN = ("IdentityAttachKLSparseReg",)


def dumps(graph: Graph, remove_amp_cast: bool = True) -> str:
    """A graph as text.

    Args:
        graph: The graph.
        remove_amp_cast: Leave out the casts of automatic mixed precision.
    """
    if remove_amp_cast:
        graph = Graph(rebuild(graph.outputs, _without_casts))
    texts = node_texts(graph)
    position = {node: index for index, node in enumerate(graph.nodes)}
    versions: dict[Node, int] = {}
    nodes = []
    for node in graph.nodes:
        for entry in node.auxiliary_inputs:
            versions[entry.node] = versions.get(entry.node, 0) + 1
        inputs = [
            _entry(position, entry, versions.get(entry.node, 0))
            for entry in node.inputs
        ]
        nodes.append(_node(node, texts[node], inputs))
    variables = (str(position[node]) for node in graph.nodes if node.is_variable)
    totals = accumulate((_total_outputs(node) for node in graph.nodes), initial=0)
    heads = [_entry(position, entry, 0) for entry in graph.outputs]
    return _block(
        "{}",
        [
            f'"nodes": {_block("[]", nodes, 2)}',
            f'"arg_nodes": {_numbers(variables, 2)}',
            f'"node_row_ptr": {_numbers(map(str, totals), 2)}',
            f'"heads": {_numbers(heads, 2)}',
            f'"attrs": {{"mxnet_version": ["int", {_MXNET_VERSION}]}}',
        ],
        0,
    )


def _without_casts(node: Node, inputs: tuple[Entry, ...]) -> Sequence[Entry] | None:
    is_cast = node.operator is not None and node.operator.name in _CASTS
    return inputs if is_cast else None


def _total_outputs(node: Node) -> int:
    """How many outputs MXNet counts."""
    declared = len(node.output_names)
    name = node.operator.name if node.operator else ""
    if name in _OWN_HIDDEN:
        return node.visible_outputs
    if not name or declared > node.visible_outputs:
        return declared
    if name == "Pooling" and node.attributes.pool_type == "max":
        return declared + 1
    return declared + _WORKSPACES.get(name, 0)


def _entry(position: Mapping[Node, int], entry: Entry, version: int) -> str:
    return f"[{position[entry.node]}, {entry.index}, {version}]"


def _node(node: Node, text: Mapping[str, str], inputs: Sequence[str]) -> str:
    operator = "null" if node.operator is None else node.operator.name
    items = [f'"op": {_string(operator)}', f'"name": {_string(node.name)}']
    if text:
        pairs = [f"{_string(key)}: {_string(text[key])}" for key in sorted(text)]
        many = len(pairs) > 1
        block = _block("{}", pairs, 6) if many else f"{{{pairs[0]}}}"
        items.append(f'"attrs": {block}')
    items.append(f'"inputs": {_numbers(inputs, 6)}')
    return _block("{}", items, 4)


def _numbers(items: Iterable[str], indent: int) -> str:
    items = list(items)
    if len(items) > _LONG_LIST:
        return _block("[]", items, indent)
    return f"[{', '.join(items)}]"


def _block(brackets: str, items: Sequence[str], indent: int) -> str:
    """Items on lines of their own; MXNet leaves a space after each comma."""
    inner = " " * (indent + 2)
    lines = ", \n".join(f"{inner}{item}" for item in items)
    return f"{brackets[0]}\n{lines}\n{' ' * indent}{brackets[1]}"


def _string(text: str) -> str:
    return f'"{text.translate(_ESCAPES)}"'
