"""The face of a plan: the tensors that cross between host and device.

Next: `runtime.graph.build`, where steps emit their rows over them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from runtime.errors import GraphError, ShapeError
from runtime.graph.gradient import needing_gradient, required_heads
from runtime.graph.infer import Inference
from runtime.graph.ir import Entry, Graph, Node, Shape
from runtime.graph.plan import CsrTensor, Layout, RowSparseTensor, Tensor
from runtime.graph.request import Request, parameter_names
from runtime.graph.storage import Storage


@dataclass(frozen=True)
class Face:
    """The tensors that cross between host and device.

    Attributes:
        layouts: All of them, by segment.
        values: Arguments and auxiliary states that are dense.
        gradients: Dense gradients that are requested.
        heads: Gradients of outputs that are needed.
        auxiliary_next: Auxiliary states after the step.
        outputs: The outputs, in the graph's order.
        csr: Inputs that come as CSR matrices.
        row_sparse: Row-sparse gradients that are requested.
    """

    layouts: Mapping[str, Layout]
    values: Mapping[Entry, Tensor]
    gradients: Mapping[Entry, Tensor]
    heads: Mapping[Entry, Tensor]
    auxiliary_next: Mapping[Entry, Tensor]
    outputs: Sequence[Tensor]
    csr: Mapping[Entry, CsrTensor]
    row_sparse: Mapping[Entry, RowSparseTensor]


def make_face(request: Request, inference: Inference, storage: Storage) -> Face:
    """Lay out every tensor of the face.

    Raises:
        GraphError, ShapeError: a shared layout does not fit the graph.
    """
    graph, gap = request.graph, request.guards

    def items(nodes: Iterable[Node]) -> list[tuple[str, Shape, str]]:
        return [
            (n.name, inference.shapes[Entry(n)], inference.dtypes[Entry(n)].name)
            for n in nodes
        ]

    wished = {name for name, wish in request.gradients.items() if wish != "null"}
    arguments = {node.name: node for node in graph.arguments}
    inputs = [arguments[n] for n in request.inputs if n not in request.csr]
    csr = {
        Entry(arguments[name]): CsrTensor(
            name,
            inference.shapes[Entry(arguments[name])],
            inference.dtypes[Entry(arguments[name])].name,
        )
        for name in request.inputs
        if name in request.csr
    }
    names = parameter_names(graph, request.inputs)
    parameters = request.parameters or Layout.pack(
        "parameter", items(arguments[name] for name in names), gap
    )
    auxiliaries = request.auxiliaries or Layout.pack(
        "auxiliary", items(graph.auxiliaries), gap
    )
    _check_layout(parameters, items(arguments[name] for name in names))
    _check_layout(auxiliaries, items(graph.auxiliaries))
    output_items = [
        (name, inference.shapes[entry], inference.dtypes[entry].name)
        for name, entry in zip(output_names(graph), graph.outputs, strict=True)
    ]
    layouts = {
        "parameter": parameters,
        "auxiliary": auxiliaries,
        "input": Layout.pack("input", items(inputs), gap),
        "output": Layout.pack("output", output_items, gap),
    }
    gradients: dict[Entry, Tensor] = {}
    heads: dict[Entry, Tensor] = {}
    auxiliary_next: dict[Entry, Tensor] = {}
    row_sparse: dict[Entry, RowSparseTensor] = {}
    if request.is_train:
        layouts["gradient"] = parameters.rename("gradient")
        layouts["auxiliary_next"] = auxiliaries.rename("auxiliary_next")
        layouts["gradient_rows"] = request.gradient_rows or row_numbers(
            items(e.node for e in storage.row_sparse if e.node.name in names), gap
        )
        layouts["gradient_values"] = row_values(
            layouts["gradient_rows"], parameters, gap
        )
        layouts["input_gradient"] = Layout.pack(
            "input_gradient",
            items(arguments[n] for n in request.inputs if n in wished),
            gap,
        )
        for name in wished:
            entry = Entry(arguments[name])
            if name in names and name in layouts["gradient_rows"].tensors:
                row_sparse[entry] = RowSparseTensor(
                    layouts["gradient_rows"].tensors[name],
                    layouts["gradient_values"].tensors[name],
                )
                continue
            segment = "gradient" if name in names else "input_gradient"
            gradients[entry] = layouts[segment].tensors[name]
        ordered = {Entry(n): None for n in graph.arguments}
        gradients = {entry: gradients[entry] for entry in ordered if entry in gradients}
        needed = needing_gradient(graph, frozenset({**gradients, **row_sparse}))
        required = required_heads(graph, needed)
        layouts["head"] = Layout.pack(
            "head",
            [(e.name, inference.shapes[e], inference.dtypes[e].name) for e in required],
            gap,
        )
        heads = {e: layouts["head"].tensors[e.name] for e in required}
        auxiliary_next = {
            Entry(n): layouts["auxiliary_next"].tensors[n.name]
            for n in graph.auxiliaries
        }
    values = {Entry(n): layouts["input"].tensors[n.name] for n in inputs}
    values |= {Entry(arguments[n]): parameters.tensors[n] for n in names}
    values |= {Entry(n): auxiliaries.tensors[n.name] for n in graph.auxiliaries}
    outputs = list(layouts["output"].tensors.values())
    return Face(
        layouts, values, gradients, heads, auxiliary_next, outputs, csr, row_sparse
    )


def row_numbers(items: Iterable[tuple[str, Shape, str]], gap: int = 0) -> Layout:
    """Where the row numbers of row-sparse gradients of these parameters lie."""
    ordered = sorted(items)
    rows = [(name, (1 + shape[0],), "int64") for name, shape, _ in ordered]
    return Layout.pack("gradient_rows", rows, gap)


def row_values(rows: Layout, parameters: Layout, gap: int = 0) -> Layout:
    """Where their values lie."""
    tensors = [(name, parameters.tensors[name]) for name in rows.tensors]
    items = [(name, tensor.shape, tensor.dtype) for name, tensor in tensors]
    return Layout.pack("gradient_values", items, gap)


def output_names(graph: Graph) -> list[str]:
    """One name per output; an output that stands twice gets a number behind it."""
    seen: dict[str, int] = {}
    names = []
    for entry in graph.outputs:
        count = seen[entry.name] = seen.get(entry.name, 0) + 1
        names.append(entry.name if count == 1 else f"{entry.name}#{count}")
    return names


def _check_layout(layout: Layout, items: list[tuple[str, Shape, str]]) -> None:
    for name, shape, dtype in items:
        tensor = layout.tensors.get(name)
        if tensor is None:
            raise GraphError(
                f"`{name}` is not among the shared parameters "
                f"({', '.join(layout.tensors)})"
            )
        if (tensor.shape, tensor.dtype) != (shape, dtype):
            raise ShapeError(
                f"`{name}` is {shape} of {dtype} in this graph, but the memory that it "
                f"shares holds {tensor.shape} of {tensor.dtype}"
            )
