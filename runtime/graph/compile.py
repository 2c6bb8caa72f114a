"""From a graph to a plan: infer, gradient, passes, memory, in one readable line.

Next: `runtime.graph.plan`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from runtime.errors import GraphError, ShapeError
from runtime.graph.build import (
    At,
    Buffer,
    Builder,
    DefinitionDraft,
    Dense,
    Draft,
    Native,
    Operand,
    Step,
)
from runtime.graph.definition import DefinitionStep
from runtime.graph.gradient import Gradients, needing_gradient, required_heads
from runtime.graph.infer import Inference, infer
from runtime.graph.ir import Entry, Graph, Node, Shape
from runtime.graph.passes.memory import Placement, place
from runtime.graph.plan import (
    Address,
    DefinitionRow,
    Layout,
    NativeRow,
    Plan,
    Row,
    Section,
    Span,
    Tensor,
)

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


@dataclass(frozen=True)
class Face:
    """The tensors that cross between host and device, segment by segment."""

    layouts: Mapping[str, Layout]
    values: Mapping[Entry, Tensor]
    gradients: Mapping[Entry, Tensor]
    heads: Mapping[Entry, Tensor]
    auxiliary_next: Mapping[Entry, Tensor]
    outputs: Sequence[Tensor]


def compile_plan(request: Request) -> Plan:
    """Compile a graph for one device.

    Raises:
        GraphError: two nodes of one name, or a request for a name that is not there.
        ShapeError: shapes that contradict each other or cannot be inferred.
    """
    graph = request.graph
    graph.check_names()
    _check_names(request)
    inference = infer(graph, request.shapes, request.dtypes)
    face = _face(request, inference)
    builder = Builder(
        graph,
        inference,
        face.values,
        face.auxiliary_next,
        face.outputs,
        _parameters(request),
        request.is_train,
        request.native,
    )
    steps = _steps(builder)
    builder.section = "forward" if request.is_train else "predict"
    if request.is_train:
        builder.gradients = Gradients(
            builder,
            face.gradients,
            frozenset(
                entry
                for entry in face.gradients
                if request.gradients[entry.name] == "add"
            ),
            face.heads,
        )
    for step in steps:
        step.forward(builder)
    builder.finish_outputs()
    if request.is_train:
        builder.section = "backward"
        for step in reversed(steps):
            step.backward(builder)
        assert isinstance(builder.gradients, Gradients)
        builder.gradients.finish()
        builder.section = "commit"
        for entry, tensor in face.auxiliary_next.items():
            source = Dense(
                Buffer(entry.name, tensor.nbytes, place=tensor),
                tensor.shape,
                tensor.dtype,
            )
            builder.copy(source, builder.dense(entry), entry.name)
    return _finish(request, face, builder.sections)


def parameter_names(graph: Graph, inputs: Iterable[str]) -> tuple[str, ...]:
    """Arguments that are not inputs, in MXNet's argument order."""
    given = frozenset(inputs)
    return tuple(n.name for n in graph.arguments if n.name not in given)


def _check_names(request: Request) -> None:
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


def _parameters(request: Request) -> frozenset[Entry]:
    names = frozenset(parameter_names(request.graph, request.inputs))
    return frozenset(Entry(n) for n in request.graph.arguments if n.name in names)


def _steps(builder: Builder) -> list[Step]:
    if builder.native is not None:
        return list(builder.native.select(builder))
    return [DefinitionStep(node) for node in builder.graph.nodes if node.operator]


def _face(request: Request, inference: Inference) -> Face:
    graph, gap = request.graph, request.guards

    def items(nodes: Iterable[Node]) -> list[tuple[str, Shape, str]]:
        return [
            (n.name, inference.shapes[Entry(n)], inference.dtypes[Entry(n)].name)
            for n in nodes
        ]

    wished = {name for name, wish in request.gradients.items() if wish != "null"}
    arguments = {node.name: node for node in graph.arguments}
    inputs = [arguments[name] for name in request.inputs]
    names = parameter_names(graph, request.inputs)
    parameters = request.parameters or Layout.pack(
        "parameter", items(arguments[name] for name in names), gap
    )
    auxiliaries = request.auxiliaries or Layout.pack(
        "auxiliary", items(graph.auxiliaries), gap
    )
    _check_layout(parameters, items(arguments[name] for name in names))
    _check_layout(auxiliaries, items(graph.auxiliaries))
    output_items = _output_items(graph, inference)
    layouts = {
        "parameter": parameters,
        "auxiliary": auxiliaries,
        "input": Layout.pack("input", items(inputs), gap),
        "output": Layout.pack("output", output_items, gap),
    }
    gradients: dict[Entry, Tensor] = {}
    heads: dict[Entry, Tensor] = {}
    auxiliary_next: dict[Entry, Tensor] = {}
    if request.is_train:
        layouts["gradient"] = parameters.rename("gradient")
        layouts["auxiliary_next"] = auxiliaries.rename("auxiliary_next")
        layouts["input_gradient"] = Layout.pack(
            "input_gradient", items(n for n in inputs if n.name in wished), gap
        )
        for name in wished:
            segment = "gradient" if name in names else "input_gradient"
            gradients[Entry(arguments[name])] = layouts[segment].tensors[name]
        ordered = {Entry(n): None for n in graph.arguments}
        gradients = {entry: gradients[entry] for entry in ordered if entry in gradients}
        needed = needing_gradient(graph, frozenset(gradients))
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
    return Face(layouts, values, gradients, heads, auxiliary_next, outputs)


def _output_items(graph: Graph, inference: Inference) -> list[tuple[str, Shape, str]]:
    """One item per output; an output that stands twice gets a number behind it."""
    seen: dict[str, int] = {}
    items = []
    for entry in graph.outputs:
        count = seen[entry.name] = seen.get(entry.name, 0) + 1
        name = entry.name if count == 1 else f"{entry.name}#{count}"
        items.append((name, inference.shapes[entry], inference.dtypes[entry].name))
    return items


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


def _finish(
    request: Request, face: Face, sections: Mapping[Section, list[Draft]]
) -> Plan:
    order: tuple[Section, ...] = ("pack", "forward", "backward", "commit", "predict")
    drafts = [draft for name in order for draft in sections.get(name, ())]
    placement = place(drafts, request.guards)
    segments = {
        name: layout.nbytes for name, layout in face.layouts.items() if layout.nbytes
    }
    segments |= placement.segments
    rows: dict[Section, tuple[Row, ...]] = {
        name: tuple(_row(draft, placement) for draft in sections[name])
        for name in order
        if sections.get(name)
    }
    return Plan(
        segments=segments,
        tensors={
            name: {
                key: tensor
                for key, tensor in layout.tensors.items()
                if name != "gradient" or tensor in face.gradients.values()
            }
            for name, layout in face.layouts.items()
        },
        sections=rows,
        output_names=tuple(face.layouts["output"].tensors),
        heads=tuple(entry.name for entry in face.heads),
        guards=request.guards,
    )


def _row(draft: Draft, placement: Placement) -> Row:
    def tensor(form: Dense | None) -> Tensor | None:
        if form is None:
            return None
        return Tensor(placement.addresses[form.buffer], form.shape, form.dtype)

    if isinstance(draft, DefinitionDraft):
        return DefinitionRow(
            draft.operator,
            draft.backward,
            draft.node,
            draft.position,
            draft.attributes,
            draft.is_train,
            tuple(map(tensor, draft.inputs)),
            tuple(map(tensor, draft.outputs)),
            tuple(map(tensor, draft.grads_out)),
            tuple(map(tensor, draft.grads_in)),
        )

    def address(at: At) -> Address:
        base = placement.addresses[at.buffer]
        return Address(base.segment, base.offset + at.offset)

    def operand(value: Operand) -> Address | tuple[Address, ...] | int | float:
        if isinstance(value, At):
            return address(value)
        if isinstance(value, tuple):
            return tuple(map(address, value))
        return value

    def span(buffer: Buffer) -> Span:
        base = placement.addresses[buffer]
        return Span(base.segment, base.offset, base.offset + buffer.nbytes)

    written = [
        at.buffer for name in draft.writes if isinstance(at := draft.operands[name], At)
    ]
    return NativeRow(
        draft.kernel,
        draft.node,
        {name: operand(value) for name, value in draft.operands.items()},
        reads=tuple(span(buffer) for buffer in draft.buffers),
        writes=tuple(map(span, written)),
        cost=draft.cost,
    )
