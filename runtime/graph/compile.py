"""From a graph to a plan: infer, storage, face, rows, gradients, places in memory.

Next: `runtime.graph.infer`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from runtime.graph import plan
from runtime.graph.build import Builder, Step
from runtime.graph.definition import DefinitionStep
from runtime.graph.draft import (
    At,
    Buffer,
    Csr,
    DefinitionDraft,
    Dense,
    Draft,
    Operand,
    RowSparse,
    Stored,
)
from runtime.graph.face import Face, make_face
from runtime.graph.gradient import Gradients
from runtime.graph.infer import infer
from runtime.graph.ir import Entry
from runtime.graph.passes.memory import Placement, place
from runtime.graph.plan import (
    Address,
    DefinitionRow,
    NativeRow,
    Plan,
    Row,
    RowSparseTensor,
    Section,
    Span,
    Tensor,
)
from runtime.graph.request import (
    GradientRequest,
    Request,
    check_names,
    parameter_names,
)
from runtime.graph.row_sparse_gradients import RowSparseGradients
from runtime.graph.storage import infer_storage

__all__ = ["GradientRequest", "Request", "compile_plan", "parameter_names"]

T = TypeVar("T")


def compile_plan(request: Request) -> Plan:
    """Compile a graph for one device.

    Raises:
        GraphError: two nodes of one name, or a request for a name that is not there.
        ShapeError: shapes that contradict each other or cannot be inferred.
    """
    graph = request.graph
    graph.check_names()
    check_names(request)
    inference = request.inference or infer(graph, request.shapes, request.dtypes)
    storage = infer_storage(graph, request.csr, _may_be_row_sparse(request))
    face = make_face(request, inference, storage)
    builder = Builder(
        graph,
        inference,
        face.values,
        face.auxiliary_next,
        face.outputs,
        _parameters(request),
        request.is_train,
        request.native,
        storage,
        face.csr,
        request.positions,
    )
    steps = _steps(builder)
    builder.section = "forward" if request.is_train else "predict"
    if request.is_train:
        builder.gradients = Gradients(
            builder,
            face.gradients,
            frozenset(_added(request, face.gradients)),
            face.heads,
            RowSparseGradients(
                builder, face.row_sparse, frozenset(_added(request, face.row_sparse))
            ),
        )
    for step in steps:
        step.forward(builder)
    builder.finish_outputs()
    if not request.is_train and request.native is not None:
        rows = builder.sections.get("predict", [])
        builder.sections["predict"] = request.native.arrange(rows)
    if request.is_train:
        builder.section = "backward"
        assert isinstance(builder.gradients, Gradients)
        builder.gradients.start()
        for step in reversed(steps):
            step.backward(builder)
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


def _parameters(request: Request) -> frozenset[Entry]:
    names = frozenset(parameter_names(request.graph, request.inputs))
    return frozenset(Entry(n) for n in request.graph.arguments if n.name in names)


def _added(request: Request, places: Mapping[Entry, T]) -> dict[Entry, T]:
    """The places of gradients that are added to what is there."""
    return {
        e: place for e, place in places.items() if request.gradients[e.name] == "add"
    }


def _may_be_row_sparse(request: Request) -> frozenset[str]:
    """Parameters whose gradient is wanted, as far as they have shared places."""
    names = parameter_names(request.graph, request.inputs)
    wanted = {n for n in names if request.gradients.get(n, "null") != "null"}
    if request.gradient_rows is not None:
        wanted &= request.gradient_rows.tensors.keys()
    return frozenset(wanted)


def _steps(builder: Builder) -> list[Step]:
    if builder.native is not None:
        return list(builder.native.select(builder))
    return [DefinitionStep(node) for node in builder.graph.nodes if node.operator]


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
        accumulated=(
            *_added(request, face.gradients).values(),
            *_added(request, face.row_sparse).values(),
        ),
        csr={entry.name: tensor for entry, tensor in face.csr.items()},
    )


def _row(draft: Draft, placement: Placement) -> Row:
    def tensor(form: Dense) -> Tensor:
        return Tensor(placement.addresses[form.buffer], form.shape, form.dtype)

    def stored(form: Stored | None) -> plan.Operand | None:
        if isinstance(form, RowSparse):
            return RowSparseTensor(tensor(form.rows), tensor(form.values))
        if isinstance(form, Csr):
            return form.tensor
        return None if form is None else tensor(form)

    if isinstance(draft, DefinitionDraft):
        return DefinitionRow(
            draft.operator,
            draft.backward,
            draft.node,
            draft.position,
            draft.attributes,
            draft.is_train,
            tuple(map(stored, draft.inputs)),
            tuple(map(stored, draft.outputs)),
            tuple(map(stored, draft.grads_out)),
            tuple(map(stored, draft.grads_in)),
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
