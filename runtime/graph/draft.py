"""What a plan is drafted of: buffers, forms of values, rows without addresses.

A value may stand in three forms: *dense* (row-major, as at the face), *image* (NHWC,
channels padded to 8, a zero halo around every picture so that convolutions need no
padding pass) and *CSR* (a sparse matrix of any number of elements). A gradient may be
row-sparse instead, from its first contribution to its place at the face.

Next: `runtime.graph.face`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from runtime.graph.ir import Shape
from runtime.graph.plan import CsrTensor, Tensor

CHANNEL_BLOCK = 8


@dataclass(eq=False, slots=True)
class Buffer:
    """Memory that a plan needs.

    Attributes:
        name: For errors and dumps.
        nbytes: Size.
        place: Where it lies, if it is a tensor of the face.
        segment: Where the planner shall put it otherwise: `arena`, where memory is
            reused as soon as a buffer is dead, or `packed`, where it is not.
        geometry: Set for images with a halo. The halo is zeroed once, so such a buffer
            may share memory only with buffers of equal geometry.
    """

    name: str
    nbytes: int
    place: Tensor | None = None
    segment: str = "arena"
    geometry: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True)
class At:
    """A byte position in a buffer: an address operand of a native row."""

    buffer: Buffer
    offset: int = 0


@dataclass(frozen=True, slots=True)
class Dense:
    """A row-major array in a buffer (which may be another array's: a view)."""

    buffer: Buffer
    shape: Shape
    dtype: str

    @property
    def size(self) -> int:
        """Its number of elements."""
        return math.prod(self.shape)

    @property
    def at(self) -> At:
        """The address of its first element."""
        return At(self.buffer)

    def view(self, shape: Shape) -> Dense:
        """The same memory in another shape of as many elements."""
        return Dense(self.buffer, shape, self.dtype)


@dataclass(frozen=True, slots=True)
class Image:
    """A float32 NHWC array with padded channels and a zero halo.

    Attributes:
        shape: Images, channels, height, width: as at the face.
        halo: Rows and columns of zeros on either side.
        unpadded: Whether there are no padding channels; see `Builder.unpadded`.
    """

    buffer: Buffer
    shape: Shape
    halo: tuple[int, int] = (0, 0)
    unpadded: bool = False

    @property
    def pixel(self) -> int:
        """Elements from one pixel to the next."""
        if self.unpadded:
            return self.shape[1]
        return -(-self.shape[1] // CHANNEL_BLOCK) * CHANNEL_BLOCK

    @property
    def is_dense(self) -> bool:
        """Whether this is the row-major array too: one pixel, no padding, no halo."""
        single = self.shape[2:] == (1, 1) and self.halo == (0, 0)
        return single and self.pixel == self.shape[1]

    @property
    def row(self) -> int:
        """Elements from one row of pixels to the next."""
        return (self.shape[3] + 2 * self.halo[1]) * self.pixel

    @property
    def image(self) -> int:
        """Elements from one picture to the next."""
        return (self.shape[2] + 2 * self.halo[0]) * self.row

    def at(self, row: int = 0, column: int = 0) -> At:
        """The address of a pixel; negative positions lie in the halo."""
        pixels = (row + self.halo[0]) * self.row + (column + self.halo[1]) * self.pixel
        return At(self.buffer, 4 * pixels)

    def fields(self, name: str, row: int = 0, column: int = 0) -> dict[str, At | int]:
        """The four fields by which native kernels take an image."""
        return {
            name: self.at(row, column),
            f"{name}_image": self.image,
            f"{name}_row": self.row,
            f"{name}_pixel": self.pixel,
        }


def optional_fields(name: str, image: Image | None) -> dict[str, At | int]:
    """`Image.fields`; all 0 for an image that is not there."""
    if image is not None:
        return image.fields(name)
    return {f"{name}{suffix}": 0 for suffix in ("", "_image", "_row", "_pixel")}


@dataclass(frozen=True, slots=True)
class Csr:
    """A CSR matrix that the program keeps by name."""

    tensor: CsrTensor

    @property
    def shape(self) -> Shape:
        """Its shape."""
        return self.tensor.shape


@dataclass(frozen=True, slots=True)
class RowSparse:
    """Some rows of an array; as `plan.RowSparseTensor`, without addresses."""

    rows: Dense
    values: Dense


Form = Dense | Image
Stored = Dense | Csr | RowSparse
Operand = At | tuple[At, ...] | int | float


@dataclass(frozen=True, slots=True)
class DefinitionDraft:
    """A `plan.DefinitionRow` whose operands have no addresses yet."""

    operator: str
    node: str
    inputs: tuple[Stored | None, ...]
    outputs: tuple[Stored | None, ...]
    backward: bool = False
    position: int = 0
    attributes: Mapping[str, str] = field(default_factory=dict)
    is_train: bool = False
    grads_out: tuple[Stored | None, ...] = ()
    grads_in: tuple[Stored | None, ...] = ()

    @property
    def buffers(self) -> list[Buffer]:
        """All buffers that it reads or writes."""
        found: list[Buffer] = []
        for form in (*self.inputs, *self.outputs, *self.grads_out, *self.grads_in):
            if isinstance(form, RowSparse):
                found += (form.rows.buffer, form.values.buffer)
            elif isinstance(form, Dense):
                found.append(form.buffer)
        return found


@dataclass(frozen=True, slots=True)
class NativeDraft:
    """A `plan.NativeRow` whose operands have no addresses yet.

    `writes` are the operands (by field name) that the kernel writes; it may read
    every address.
    """

    kernel: str
    node: str
    operands: dict[str, Operand]
    writes: tuple[str, ...]
    cost: float

    @property
    def buffers(self) -> list[Buffer]:
        """All buffers that it reads or writes."""
        found: list[Buffer] = []
        for operand in self.operands.values():
            if isinstance(operand, At):
                found.append(operand.buffer)
            elif isinstance(operand, tuple):
                found.extend(at.buffer for at in operand)
        return found


Draft = DefinitionDraft | NativeDraft
