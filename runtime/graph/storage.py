"""Storage types: which values are CSR matrices, which gradients are some rows only.

CSR comes in with inputs and goes through functions that keep zeros. The gradient of a
value is row-sparse if all its readers make it so, and if what the value comes from, a
parameter or an operator, can take it; then no dense array of its size is ever touched.
MXNet infers storage types likewise (`InferStorageType`).

Next: `runtime.graph.draft`.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from runtime.graph.ir import Entry, Graph, Node


@dataclass(frozen=True)
class Storage:
    """See the module.

    Attributes:
        csr: Values that are CSR matrices.
        row_sparse: Values whose gradient is row-sparse.
    """

    csr: frozenset[Entry] = frozenset()
    row_sparse: frozenset[Entry] = frozenset()


def infer_storage(
    graph: Graph, csr_inputs: Collection[str], parameters: Collection[str]
) -> Storage:
    """Infer storage types.

    Args:
        graph: The graph.
        csr_inputs: Inputs that come as CSR matrices.
        parameters: Variables whose gradient may be row-sparse.
    """
    csr: set[Entry] = set()
    for node in graph.nodes:
        if node.operator is None:
            comes_so = node.name in csr_inputs
        else:
            comes_so = node.operator.keeps_zeros and node.inputs[0] in csr
        if comes_so:
            csr.add(Entry(node))
    row_sparse: set[Entry] = set()
    readers = _differentiable_readers(graph)
    for node in reversed(graph.nodes):
        entry = Entry(node)
        if entry in graph.outputs or not readers.get(entry):
            continue
        if node.operator is None:
            takes_it = node.name in parameters
        else:
            takes_it = bool(_row_sparse_inputs(node, csr, head=True)) and not (
                _row_sparse_inputs(node, csr, head=False)
            )
        if takes_it and all(
            name in _row_sparse_inputs(reader, csr, Entry(reader) in row_sparse)
            for reader, name in readers[entry]
        ):
            row_sparse.add(entry)
    return Storage(frozenset(csr), frozenset(row_sparse))


def _differentiable_readers(graph: Graph) -> dict[Entry, list[tuple[Node, str]]]:
    """Which inputs of which nodes give a gradient to each value."""
    readers: dict[Entry, list[tuple[Node, str]]] = {}
    for node in graph.nodes:
        operator = node.operator
        if operator is None or not (operator.backward or operator.shares_gradient):
            continue
        names = operator.input_names(node.attributes)
        for entry, name in zip(node.inputs, names, strict=True):
            if name not in operator.no_gradient:
                readers.setdefault(entry, []).append((node, name))
    return readers


def _row_sparse_inputs(node: Node, csr: Collection[Entry], head: bool) -> set[str]:
    operator = node.operator
    if operator is None or operator.row_sparse_gradients is None:
        return set()
    names = operator.input_names(node.attributes)
    pairs = zip(names, node.inputs, strict=True)
    sparse = {name for name, entry in pairs if entry in csr}
    return set(operator.row_sparse_gradients(node.attributes, sparse, head))
