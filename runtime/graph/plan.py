"""The plan: what a device runs, as plain data made once at bind.

A plan names its memory (segments and what lies where in them) and lists rows,
grouped in sections. A row is one kernel with all its operands resolved to
(segment, offset); nothing is decided or allocated while a step runs. Plans hold no
callables and no arrays, so that they can be sent to another process.

Made by `runtime.graph.compile`, run by `runtime.devices`.

Next: `runtime.devices.contract`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from runtime.graph.ir import Shape

ALIGNMENT = 64  # bytes: a cache line, and the widest vector
HALF = "float16"

# Segment with seed, step and row of what is run, for rows that draw random numbers.
STEP_KEY = "step_key"

# What a plan holds, and "step": forward and backward in one launch.
Section = Literal[
    "pack",
    "forward",
    "backward",
    "commit",
    "predict",
    "step",
    "prepare",
    "update",
    "start",
    "add",
]


@dataclass(frozen=True, slots=True)
class Address:
    """A place in a segment, in bytes."""

    segment: str
    offset: int


@dataclass(frozen=True, slots=True)
class Tensor:
    """A dense row-major array at a place in a segment.

    Attributes:
        address: Where its first element lies.
        shape: Its shape; () does not occur, a scalar is (1,).
        dtype: NumPy's name of the element type, such as "float32".
    """

    address: Address
    shape: Shape
    dtype: str

    @property
    def size(self) -> int:
        """Its number of elements."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Its size in bytes."""
        return self.size * np.dtype(self.dtype).itemsize


@dataclass(frozen=True, slots=True)
class RowSparseTensor:
    """Memory for some rows of an array: see `runtime.row_sparse.RowSparsePlace`.

    Attributes:
        rows: int64 (1 + rows of the array): how many are there, then their numbers.
        values: Of the array's shape; its first rows hold the values.
    """

    rows: Tensor
    values: Tensor


@dataclass(frozen=True, slots=True)
class CsrTensor:
    """A scipy.sparse CSR matrix, which a program keeps by name: its size varies."""

    name: str
    shape: Shape
    dtype: str


Operand = Tensor | RowSparseTensor | CsrTensor


@dataclass(frozen=True, slots=True)
class Span:
    """Bytes that a row reads or writes."""

    segment: str
    begin: int
    end: int

    def overlaps(self, other: Span) -> bool:
        """Whether both have a byte in common."""
        return (
            self.segment == other.segment
            and self.begin < other.end
            and other.begin < self.end
        )


@dataclass(frozen=True, slots=True)
class DefinitionRow:
    """A row run by an operator's NumPy definition or gradient rule.

    Attributes:
        operator: Registered name, or "+=", "=" and "0" for the planner's own sums,
            copies and zero fills; "rows=" copies the rows that are there.
        backward: Whether this is the gradient rule.
        node: The node's name, for errors and traces.
        position: The node's position in the graph: part of the key of its random
            numbers.
        attributes: The operator's attributes as MXNet's strings.
        is_train: The mode that the definition sees.
        grads_out, inputs, outputs, grads_in: Operands as in `registry.Forward` and
            `registry.Backward`; None where not given or not wanted.
    """

    operator: str
    backward: bool
    node: str
    position: int
    attributes: Mapping[str, str]
    is_train: bool
    inputs: tuple[Operand | None, ...]
    outputs: tuple[Operand | None, ...]
    grads_out: tuple[Operand | None, ...] = ()
    grads_in: tuple[Operand | None, ...] = ()

    @classmethod
    def planned(
        cls, operator: str, node: str, target: Operand, *sources: Operand
    ) -> DefinitionRow:
        """A row of the planner's own: a sum, a copy, a zero fill."""
        return cls(operator, False, node, 0, {}, True, sources, (target,))

    @property
    def reads(self) -> tuple[Span, ...]:
        """The bytes that are read."""
        tensors = (*self.inputs, *self.grads_out)
        if self.backward:
            tensors = (*tensors, *self.outputs)
        if self.operator == "+=":
            tensors = (*tensors, *self.outputs)
        return spans(tensors)

    @property
    def writes(self) -> tuple[Span, ...]:
        """The bytes that are written."""
        return spans(self.grads_in if self.backward else self.outputs)


@dataclass(frozen=True, slots=True)
class NativeRow:
    """A row run by a native kernel.

    Attributes:
        kernel: The kernel's name in the device's table.
        node: The node's name (or several, joined by "+", for a fused row).
        operands: Field values: addresses, tables of addresses, integers and reals.
        reads, writes: What the kernel touches.
        cost: Estimated microseconds, for the choice between inline and thread.
        tables: If all that it changes is some rows of arrays: these arrays, with the
            numbers of the rows, which lie there before it runs.
    """

    kernel: str
    node: str
    operands: Mapping[str, Address | tuple[Address, ...] | int | float]
    reads: tuple[Span, ...]
    writes: tuple[Span, ...]
    cost: float = 0.0
    tables: tuple[RowSparseTensor, ...] = ()


@dataclass(frozen=True, slots=True)
class UpdateRow:
    """A row that updates one weight, or a flat piece, by an update rule's definition.

    It writes beside what it reads: the results take effect when other rows copy them.

    Attributes:
        rule: Name in `runtime.ops.update`.
        node: The parameter's name.
        weight: The weight or piece; gradients and states lie alike.
        gradients: One per device, summed in this order.
        states: The optimizer's states.
        hyper: The rule's scalars, float64.
        reset: Read the weight as 1 (a fixed gamma).
        master: The float32 copy of a float16 weight, which is what is updated; the
            states then are float32.
        results: Places for the new weight, states and master.
    """

    rule: str
    node: str
    weight: Tensor
    gradients: tuple[Tensor, ...]
    states: tuple[Tensor, ...]
    hyper: Tensor
    reset: bool = False
    master: Tensor | None = None
    results: tuple[Tensor, ...] = ()

    @property
    def kept(self) -> tuple[Tensor, ...]:
        """What the update changes: weight, states and master."""
        master = () if self.master is None else (self.master,)
        return (self.weight, *self.states, *master)

    @property
    def reads(self) -> tuple[Span, ...]:
        """The bytes that are read."""
        return spans((*self.kept, *self.gradients, self.hyper))

    @property
    def writes(self) -> tuple[Span, ...]:
        """The bytes that are written."""
        return spans(self.results)


@dataclass(frozen=True, slots=True)
class RowSparseUpdateRow:
    """An `UpdateRow` for the rows that row-sparse gradients have, each by itself.

    Attributes:
        part, parts: Which share of these rows.
        results: Where the new rows of weight and states are written, with their
            numbers.
    """

    rule: str
    node: str
    weight: Tensor
    gradients: tuple[RowSparseTensor, ...]
    states: tuple[Tensor, ...]
    hyper: Tensor
    reset: bool
    part: int
    parts: int
    results: tuple[RowSparseTensor, ...]

    @property
    def reads(self) -> tuple[Span, ...]:
        """The bytes that are read."""
        return spans((self.weight, *self.gradients, *self.states, self.hyper))

    @property
    def writes(self) -> tuple[Span, ...]:
        """The bytes that are written."""
        return spans(self.results)


Row = DefinitionRow | NativeRow | UpdateRow | RowSparseUpdateRow


@dataclass(frozen=True)
class Layout:
    """Names and places of the tensors of one flat segment, such as the parameters.

    Replicas, training and inference plans of one module are made with the same layout,
    which is how they share the memory.
    """

    tensors: Mapping[str, Tensor]
    nbytes: int

    @classmethod
    def pack(
        cls, segment: str, items: Iterable[tuple[str, Shape, str]], gap: int = 0
    ) -> Layout:
        """Lay tensors out one after another, each on a cache line.

        Args:
            segment: The segment's name.
            items: Name, shape and dtype of each tensor, in order.
            gap: Bytes to leave free between two tensors (guard zones).
        """
        tensors: dict[str, Tensor] = {}
        offset = gap
        for name, shape, dtype in items:
            tensor = Tensor(Address(segment, offset), shape, dtype)
            tensors[name] = tensor
            offset += round_up(tensor.nbytes) + gap
        return cls(tensors, offset)

    def rename(self, segment: str) -> Layout:
        """The same layout in another segment (gradients lie as the parameters do)."""
        return Layout(
            {
                name: Tensor(Address(segment, t.address.offset), t.shape, t.dtype)
                for name, t in self.tensors.items()
            },
            self.nbytes,
        )

    def widened(self) -> Layout:
        """A layout of the same tensors with float32 in place of float16."""
        if all(tensor.dtype != HALF for tensor in self.tensors.values()):
            return self
        return Layout.pack(
            "widened",
            [
                (
                    name,
                    tensor.shape,
                    "float32" if tensor.dtype == HALF else tensor.dtype,
                )
                for name, tensor in self.tensors.items()
            ],
        )


@dataclass(frozen=True)
class Plan:
    """Everything that a device must know to run a graph.

    Attributes:
        segments: Size of each segment in bytes. The usual names: `parameter`,
            `auxiliary`, `auxiliary_next`, `gradient` (laid out as `parameter`),
            `gradient_rows` and `gradient_values` (row-sparse gradients),
            `input`, `input_gradient`, `head` (head gradients), `output`, `arena`,
            `halo` (images with a halo), `packed` (repacked weights), `step_key` (what
            native rows draw random numbers by, at its beginning; see `STEP_KEY`).
        tensors: For each face segment, its named dense tensors: what `write` and
            `read` of a program go by. `output` is keyed by output name.
        sections: The rows to run, in order.
        slotted: Segments of which a program keeps one copy per step in flight.
        zeroed: Segments that must be zero before first use (halos, padding, counts
            of rows).
        output_names: Names of the outputs in the graph's order.
        heads: The outputs that need a head gradient in `backward`.
        guards: Bytes of guard zone between neighbors in every segment; 0 normally.
        accumulated: Gradients that `backward` adds to: running it twice is not
            running it once.
        csr: Inputs that come as CSR matrices, by name; they have no segment.
        by_rows: Segments of row-sparse arrays: each tensor is used from its beginning
            as far as there are rows.
    """

    segments: Mapping[str, int]
    tensors: Mapping[str, Mapping[str, Tensor]]
    sections: Mapping[Section, tuple[Row, ...]]
    output_names: tuple[str, ...] = ()
    heads: tuple[str, ...] = ()
    slotted: tuple[str, ...] = ("input", "output")
    zeroed: tuple[str, ...] = ("halo", "gradient_rows")
    guards: int = 0
    accumulated: tuple[Tensor | RowSparseTensor, ...] = ()
    csr: Mapping[str, CsrTensor] = field(default_factory=dict)
    by_rows: tuple[str, ...] = ("gradient_rows", "gradient_values")

    @property
    def all_native(self) -> bool:
        """Whether no row needs Python."""
        return all(
            isinstance(row, NativeRow)
            for rows in self.sections.values()
            for row in rows
        )

    def cost(self, *sections: Section) -> float:
        """Estimated microseconds of these sections; infinite with Python rows."""
        total = 0.0
        for section in sections:
            for row in self.sections.get(section, ()):
                total += row.cost if isinstance(row, NativeRow) else math.inf
        return total


def round_up(nbytes: int, multiple: int = ALIGNMENT) -> int:
    """The next multiple that holds `nbytes`."""
    return -(-nbytes // multiple) * multiple


def spans(operands: Iterable[Operand | None]) -> tuple[Span, ...]:
    """The bytes of operands; a CSR matrix counts as a segment of its own."""
    found: list[Span] = []
    for operand in operands:
        if isinstance(operand, RowSparseTensor):
            found += spans((operand.rows, operand.values))
        elif isinstance(operand, CsrTensor):
            found.append(Span(f"csr {operand.name}", 0, 1))
        elif operand is not None:
            begin = operand.address.offset
            found.append(Span(operand.address.segment, begin, begin + operand.nbytes))
    return tuple(found)


def gaps(owned: Iterable[Span], nbytes: int) -> list[tuple[int, int]]:
    """Begin and end of what no span has of so many bytes."""
    found = []
    position = 0
    for span in sorted(owned, key=lambda s: s.begin):
        if span.begin > position:
            found.append((position, span.begin))
        position = max(position, span.end)
    if position < nbytes:
        found.append((position, nbytes))
    return found
