"""The builder: rows over buffers that have no place in memory yet.

Steps (one graph node, or several fused ones) emit their rows here, forward in graph
order and backward in reverse. A value that stands in one form (`runtime.graph.draft`)
and is asked for in another is converted on demand, once.

Next: `runtime.graph.definition`, the step that works for every node.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np

from runtime.errors import GraphError
from runtime.graph.draft import (
    At,
    Buffer,
    Csr,
    DefinitionDraft,
    Dense,
    Draft,
    Form,
    Image,
    NativeDraft,
    Operand,
    RowSparse,
)
from runtime.graph.infer import Inference
from runtime.graph.ir import Entry, Graph, Node, Shape
from runtime.graph.plan import (
    STEP_KEY,
    Address,
    CsrTensor,
    NativeRow,
    RowSparseUpdateRow,
    Section,
    Tensor,
    UpdateRow,
)
from runtime.graph.storage import Storage


class Step(Protocol):
    """One node, or a fused run of nodes, that knows how to emit its rows."""

    @property
    def nodes(self) -> tuple[Node, ...]:
        """The nodes that it does, in the graph's order."""
        ...

    def forward(self, b: Builder) -> None:
        """Emit the rows of the forward, and define the values that they give."""
        ...

    def backward(self, b: Builder) -> None:
        """Emit the rows of the backward, and contribute the gradients they give."""
        ...


class Native(Protocol):
    """What a device with native kernels offers to the compiler."""

    def select(self, b: Builder) -> Sequence[Step]:
        """Cover the graph with steps, fused where a kernel does several nodes."""
        ...

    def to_image(self, b: Builder, source: Dense, target: Image, node: str) -> None:
        """Emit the conversion of a row-major array to an image."""
        ...

    def from_image(self, b: Builder, source: Image, target: Dense, node: str) -> None:
        """Emit the conversion of an image to a row-major array."""
        ...

    def add(self, b: Builder, a: Form, c: Form, target: Form, node: str) -> bool:
        """target = a + c; False if there is no kernel for these forms."""
        ...

    def copy(self, b: Builder, source: Form, target: Form, node: str) -> bool:
        """target = source; False if there is no kernel for these forms."""
        ...

    def arrange(self, rows: Sequence[Draft]) -> list[Draft]:
        """A prediction's rows, in the order and the parts that suit the device."""
        ...

    def update(self, row: UpdateRow) -> Sequence[NativeRow] | None:
        """Kernels that do what an update row does; None if there are none.

        They write in place; segment `scaled` is scratch, laid out as `hyper`, and so is
        `wide`, laid out as the states of parameters that have masters.
        """
        ...

    def update_by_rows(
        self, row: RowSparseUpdateRow, numbers: Tensor, scratch: Address
    ) -> tuple[NativeRow, NativeRow] | None:
        """Kernels that do what a lazy update does; None if there are none.

        The first one writes the numbers of the row's share, the second one updates
        these rows in place.

        Args:
            row: The update; it has no results.
            numbers: Where the numbers go.
            scratch: Room for two words for each gradient and one for each tensor that
                the update changes.
        """
        ...

    def accumulate(
        self, source: Tensor, target: Tensor, add: bool, node: str
    ) -> NativeRow | None:
        """target = source, or target += source; None if there is no kernel."""
        ...


class RowSparseBook(Protocol):
    """See `runtime.graph.row_sparse_gradients.RowSparseGradients`."""

    def __contains__(self, entry: Entry) -> bool: ...
    def sum(self, entry: Entry) -> RowSparse | None: ...
    def fresh(self, entry: Entry) -> RowSparse: ...
    def contribute(self, entry: Entry, form: RowSparse) -> None: ...


class GradientBook(Protocol):
    """Where steps find and leave gradients: see `runtime.graph.gradient.Gradients`."""

    @property
    def row_sparse(self) -> RowSparseBook: ...
    def wanted(self, entry: Entry) -> bool: ...
    def dense(self, entry: Entry) -> Dense | None: ...
    def image(self, entry: Entry) -> Image | None: ...
    def has_image(self, entry: Entry) -> bool: ...
    def fresh(self, entry: Entry) -> Dense: ...
    def fresh_image(self, entry: Entry) -> Image: ...
    def accumulator(self, entry: Entry) -> Form | None: ...
    def contribute(self, entry: Entry, form: Form, owned: bool = True) -> None: ...


class Builder:
    """Collects the rows of one plan.

    Attributes:
        gradients: The book of gradients; set in a training plan.
        halo, gradient_halo: Halo that the users of a value (of its gradient) need, as
            rows and columns on each side; steps fill it in before anything is emitted.
        unpadded: Values of few channels that are stored as images without padding
            channels, because all their users can read that; filled in likewise.
    """

    gradients: GradientBook

    def __init__(
        self,
        graph: Graph,
        inference: Inference,
        places: Mapping[Entry, Tensor],
        auxiliary_next: Mapping[Entry, Tensor],
        output_places: Sequence[Tensor],
        parameters: frozenset[Entry],
        is_train: bool,
        native: Native | None,
        storage: Storage,
        csr: Mapping[Entry, CsrTensor],
        positions: Mapping[str, int] | None = None,
    ) -> None:
        self.graph = graph
        self.inference = inference
        self.is_train = is_train
        self.native = native
        self.storage = storage
        self.parameters = parameters
        self.sections: dict[Section, list[Draft]] = {}
        self.section: Section = "forward"
        self.positions = {
            node: i if positions is None else positions.get(node.name, 0)
            for i, node in enumerate(graph.nodes)
        }
        self.users = count_users(graph)
        self.halo: dict[Entry, tuple[int, int]] = {}
        self.gradient_halo: dict[Entry, tuple[int, int]] = {}
        self.unpadded: set[Entry] = set()
        self._step_key = Buffer(STEP_KEY, 24, segment=STEP_KEY)
        self._forms: dict[Entry, dict[type, Form | Csr]] = {}
        self._saved: dict[tuple[Node, str], Buffer] = {}
        self._next = {
            entry: self._placed(tensor, entry.name + ".next")
            for entry, tensor in auxiliary_next.items()
        }
        for entry, tensor in places.items():
            self.define(entry, self._placed(tensor, entry.name))
        for entry, matrix in csr.items():
            self.define(entry, Csr(matrix))
        self._outputs = list(zip(graph.outputs, output_places, strict=True))
        self._output_places: dict[Entry, Tensor] = {}
        for entry, tensor in self._outputs:
            self._output_places.setdefault(entry, tensor)

    # Shapes and memory -----------------------------------------------------------

    def shape(self, entry: Entry) -> Shape:
        """The shape of a value, as at the face."""
        return self.inference.shapes[entry]

    def dtype(self, entry: Entry) -> str:
        """NumPy's name of the dtype of a value."""
        return self.inference.dtypes[entry].name

    def is_output(self, entry: Entry) -> bool:
        """Whether the graph ends in this value."""
        return entry in self._output_places

    def saved(self, node: Node, name: str, nbytes: int) -> Buffer:
        """A buffer that the forward of a node leaves for its backward."""
        key = (node, name)
        if key not in self._saved:
            self._saved[key] = Buffer(f"{node.name}.{name}", nbytes)
        return self._saved[key]

    @property
    def step_key(self) -> At:
        """Seed, step and first row of the batch of what is run, as int64."""
        return At(self._step_key)

    def new_dense(self, name: str, shape: Shape, dtype: str) -> Dense:
        """A row-major array in a buffer of its own."""
        nbytes = math.prod(shape) * np.dtype(dtype).itemsize
        return Dense(Buffer(name, nbytes), shape, dtype)

    def new_image(
        self,
        name: str,
        shape: Shape,
        halo: tuple[int, int] = (0, 0),
        unpadded: bool = False,
    ) -> Image:
        """An image in a buffer of its own; `shape` as at the face, float32."""
        image = Image(Buffer(name, 0), shape, halo, unpadded)
        image.buffer.nbytes = 4 * shape[0] * image.image
        if halo != (0, 0):
            image.buffer.geometry = (*shape, *halo, image.pixel)
        return image

    def _placed(self, tensor: Tensor, name: str) -> Dense:
        buffer = Buffer(name, tensor.nbytes, place=tensor)
        return Dense(buffer, tensor.shape, tensor.dtype)

    # Values ----------------------------------------------------------------------

    def define(self, entry: Entry, form: Form | Csr) -> None:
        """Say in which form (or second form) a value stands."""
        self._forms.setdefault(entry, {})[type(form)] = form

    def dense(self, entry: Entry) -> Dense:
        """The value row-major, converted once if it stands otherwise."""
        forms = self._forms[entry]
        if Dense not in forms and Csr in forms:
            matrix = forms[Csr]
            assert isinstance(matrix, Csr)
            target = self.output(entry)
            self.emit(DefinitionDraft("=", entry.node.name, (matrix,), (target,)))
            forms[Dense] = target
        if Dense not in forms:
            image = forms[Image]
            assert isinstance(image, Image)
            if image.is_dense and not self.is_output(entry):
                forms[Dense] = Dense(image.buffer, image.shape, "float32")
                return self.dense(entry)
            target = self.output(entry)
            self._converter().from_image(self, image, target, entry.node.name)
            forms[Dense] = target
        found = forms[Dense]
        assert isinstance(found, Dense)
        return found

    def csr_or_dense(self, entry: Entry) -> Csr | Dense:
        """The value as a CSR matrix if it stands so."""
        form = self._forms[entry].get(Csr)
        return form if isinstance(form, Csr) else self.dense(entry)

    def new_csr(self, entry: Entry) -> Csr:
        """A place for a node's output that is a CSR matrix."""
        tensor = CsrTensor(entry.name, self.shape(entry), self.dtype(entry))
        return Csr(tensor)

    def image(self, entry: Entry) -> Image:
        """The value as an image with the halo that its users need."""
        forms = self._forms[entry]
        if Image not in forms:
            source = self.dense(entry)
            alias = Image(source.buffer, source.shape)
            if alias.is_dense and self.halo.get(entry, (0, 0)) == (0, 0):
                forms[Image] = alias
                return alias
            target = self.output_image(entry)
            self._converter().to_image(self, source, target, entry.node.name)
            forms[Image] = target
        found = forms[Image]
        assert isinstance(found, Image)
        return found

    def has_image(self, entry: Entry) -> bool:
        """Whether the value stands as an image already."""
        return Image in self._forms.get(entry, {})

    def next_auxiliary(self, entry: Entry) -> Dense:
        """Where the next value of an auxiliary state is written in training."""
        return self._next[entry]

    def output(self, entry: Entry) -> Dense:
        """A dense array for a node's output: at the face if the graph ends there."""
        if entry in self._output_places:
            return self._placed(self._output_places[entry], entry.name)
        return self.new_dense(entry.name, self.shape(entry), self.dtype(entry))

    def output_image(self, entry: Entry) -> Image:
        """An image for a node's output, with the halo that its users need."""
        return self.new_image(
            entry.name,
            self.shape(entry),
            self.halo.get(entry, (0, 0)),
            entry in self.unpadded,
        )

    def _converter(self) -> Native:
        if self.native is None:
            raise GraphError("images exist only where there are native kernels")
        return self.native

    # Rows ------------------------------------------------------------------------

    def emit(self, draft: Draft, section: Section | None = None) -> None:
        """Append a row to a section, the current one unless given."""
        self.sections.setdefault(section or self.section, []).append(draft)

    def kernel(
        self,
        kernel: str,
        node: str,
        writes: tuple[str, ...],
        cost: float,
        section: Section | None = None,
        /,
        **operands: Operand,
    ) -> NativeDraft:
        """Emit one native row; `writes` names the operands that it writes."""
        draft = NativeDraft(kernel, node, operands, writes, cost)
        self.emit(draft, section)
        return draft

    def copy(self, source: Form, target: Form, node: str) -> None:
        """target = source, cast to its dtype."""
        if self.native is not None and self.native.copy(self, source, target, node):
            return
        assert isinstance(source, Dense)
        assert isinstance(target, Dense)
        self.emit(DefinitionDraft("=", node, (source,), (target,)))

    def zero(self, target: Dense, node: str) -> None:
        """target = 0."""
        self.emit(DefinitionDraft("0", node, (), (target,)))

    def sum(self, a: Form, c: Form, target: Form, node: str) -> None:
        """target = a + c; target may be a."""
        if self.native is not None and self.native.add(self, a, c, target, node):
            return
        assert isinstance(a, Dense)
        assert isinstance(c, Dense)
        assert isinstance(target, Dense)
        if a.buffer is not target.buffer:
            self.emit(DefinitionDraft("=", node, (a,), (target,)))
        self.emit(DefinitionDraft("+=", node, (c,), (target,)))

    def finish_outputs(self) -> None:
        """Bring every output to its place at the face."""
        for entry, tensor in self._outputs:
            value = self.dense(entry)
            if value.buffer.place is not tensor:
                self.copy(value, self._placed(tensor, entry.name), entry.node.name)


def count_users(graph: Graph) -> dict[Entry, int]:
    """How often each value is read by nodes (being an output does not count)."""
    users: dict[Entry, int] = {}
    for node in graph.nodes:
        for entry in node.inputs:
            users[entry] = users.get(entry, 0) + 1
    return users
