"""Host memory and the runner of plans in it: what all CPU-side devices share.

Everything is resolved when a plan is compiled: every row becomes a callable over NumPy
views of the segments, and launching a section calls them in order.

Next: `runtime.devices.reference`, which is this and nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from runtime.devices.contract import FIRST_STEP, Segment, StepKey
from runtime.devices.guards import Guards
from runtime.devices.row_sparse_updates import bind_row_sparse_update
from runtime.devices.rows import Run, View, bind_definition, bind_update
from runtime.devices.sparse import CsrPlace
from runtime.errors import ClosedError, DeviceError, GradientError, ShapeError
from runtime.graph.plan import (
    ALIGNMENT,
    Address,
    CsrTensor,
    DefinitionRow,
    Operand,
    Plan,
    Row,
    RowSparseTensor,
    RowSparseUpdateRow,
    Section,
    Span,
    Tensor,
    UpdateRow,
)
from runtime.row_sparse import RowSparsePlace

Array = NDArray[Any]

# The sections that change what weights are packed from, and where that lies.
_CHANGED: dict[Section, str] = {"update": "parameter", "commit": "auxiliary"}


class HostSegment:
    """A block of host memory on a cache line."""

    __slots__ = ("data", "nbytes", "version")

    def __init__(self, nbytes: int, fill: int | None = None) -> None:
        # Zeros cost nothing until they are touched; much of a large table never is.
        allocate = np.zeros if fill == 0 else np.empty
        raw = allocate(nbytes + ALIGNMENT, np.uint8)
        shift = -raw.ctypes.data % ALIGNMENT
        self.data = raw[shift : shift + nbytes]
        self.nbytes = nbytes
        self.version = 0
        if fill:
            self.data[:] = fill

    @classmethod
    def over(cls, data: NDArray[np.uint8]) -> HostSegment:
        """A segment of memory that is there already."""
        segment = cls.__new__(cls)
        segment.data, segment.nbytes, segment.version = data, data.nbytes, 0
        return segment


class Allocate(Protocol):
    """Where the memory of a program's segments comes from."""

    def __call__(
        self, name: str, slot: int, nbytes: int, fill: int | None
    ) -> HostSegment:
        """A segment that is full of `fill`; of anything if that is None."""
        ...


def allocate(name: str, slot: int, nbytes: int, fill: int | None) -> HostSegment:
    """Memory of this process."""
    return HostSegment(nbytes, fill)


class HostDevice(Protocol):
    """A device whose programs run in whatever host memory they are given."""

    def compile(
        self,
        plan: Plan,
        shared: Mapping[str, Segment] | None = None,
        slots: int = 1,
        allocate: Allocate = allocate,
    ) -> HostProgram: ...


class Undoing(Protocol):
    """What can take a launch back; see `runtime.devices.undoing`."""

    def begin(self, section: Section, slot: int) -> None:
        """Save what a launch is about to change."""
        ...

    def undo(self, section: Section) -> None:
        """Put it back."""
        ...


@dataclass(frozen=True, slots=True)
class Bound:
    """What runs a row (or a few), and what that touches."""

    run: Run
    reads: tuple[Span, ...] = ()
    writes: tuple[Span, ...] = ()


class HostProgram:
    """A plan resolved in host memory; see `contract.Program` for the promises.

    Attributes:
        undoing: What takes its launches back; None if nothing does.
    """

    inline = False
    native = False

    def __init__(
        self,
        device: str,
        plan: Plan,
        shared: Mapping[str, Segment] | None = None,
        slots: int = 1,
        fill: int | None = None,
        allocate: Allocate = allocate,
    ) -> None:
        self.plan = plan
        self.device = device
        self._slots = slots
        self._closed = False
        self._forward: tuple[int, StepKey] | None = None
        self._backward_done = False
        self._packs = "pack" in plan.sections
        self._packed: list[int] | None = None
        self.segments: dict[str, HostSegment] = {}
        self._slotted: dict[str, list[HostSegment]] = {}
        for name, nbytes in plan.segments.items():
            given = (shared or {}).get(name)
            if given is not None:
                self.segments[name] = _accept(name, given, nbytes)
                continue
            value = 0 if name in plan.zeroed else fill
            copies = slots if name in plan.slotted else 1
            made = [allocate(name, slot, nbytes, value) for slot in range(copies)]
            self.segments[name] = made[0]
            if copies > 1:
                self._slotted[name] = made
        self._packed_from = [self.segments[name] for name in _sources(plan)]
        self._csr: dict[tuple[str, int], CsrPlace] = {}
        self._states: dict[int, Any] = {}
        self._face = [
            {
                (segment, name): self.view(tensor, slot)
                for segment, tensors in plan.tensors.items()
                for name, tensor in tensors.items()
            }
            for slot in range(slots)
        ]
        self._sections = [self._bind_sections(slot) for slot in range(slots)]
        self.undoing: Undoing | None = None
        self._guards = (
            Guards(plan, lambda name, slot: self.segment(name, slot).data, slots)
            if plan.guards
            else None
        )

    # The contract ----------------------------------------------------------------

    def write(
        self,
        segment: str,
        name: str,
        value: Array,
        slot: int = 0,
        *,
        rows: int | None = None,
    ) -> None:
        try:  # no call: on the path of every step
            target = self._face[slot][segment, name]
        except (KeyError, IndexError):
            if segment == "input" and name in self.plan.csr:
                self.csr_place(self.plan.csr[name], slot).write(value)
                return
            raise self._no_tensor(segment, name, slot) from None
        if rows is not None:
            target = target[:rows]
        if value.shape != target.shape:
            raise ShapeError(
                f"`{name}` has shape {value.shape}, but {target.shape} is bound"
            )
        if value.dtype == target.dtype:
            target[...] = value
        else:
            with np.errstate(all="ignore"):
                np.copyto(target, value, casting="unsafe")
        self.segments[segment].version += 1

    def read(
        self,
        segment: str,
        name: str,
        slot: int = 0,
        *,
        rows: int | None = None,
        out: Array | None = None,
    ) -> Array:
        self.wait()
        if segment == "input" and name in self.plan.csr:
            matrix: Array = self.csr_place(self.plan.csr[name], slot).value.copy()
            return matrix
        tensor = self._tensor(segment, name, slot)[:rows]
        if out is None:
            return tensor.copy()
        np.copyto(out, tensor, casting="no")
        return out

    def fill(self, segment: str, value: float = 0.0) -> None:
        for name in self.plan.tensors[segment]:
            for slot in range(self._slots if segment in self._slotted else 1):
                self._tensor(segment, name, slot).fill(value)
        self.segments[segment].version += 1

    def launch(
        self,
        section: Section,
        slot: int = 0,
        key: StepKey = FIRST_STEP,
    ) -> None:
        if self._closed:
            raise ClosedError(f"a program on {self.device} was used after close")
        if self.undoing is not None:
            self.undoing.begin(section, slot)
        if section == "step":
            self._step(slot, key)
        else:
            self._launch(section, slot, key)
        if self._guards is not None:
            self._guards.check(section)

    def wait(self) -> None:
        """Nothing is ever late here."""

    def undo(self, section: Section) -> bool:
        """Nothing was kept, unless something keeps it."""
        if self.undoing is None:
            return False
        self.undoing.undo(section)
        self.changed(section)
        return True

    def close(self) -> None:
        self._closed = True
        self._sections = []
        self._face = []
        self._csr = {}
        self._slotted = {}
        self._packed_from = []
        self.undoing = None
        self.segments = {}

    def _launch(self, section: Section, slot: int, key: StepKey) -> None:
        if section == "backward":
            slot, key = self._before_backward()
        if section in _CHANGED:
            self.changed(section)
        if section in ("forward", "predict"):
            self._repack(key)
        self._run(section, slot, key)
        if section == "forward":
            self._forward, self._backward_done = (slot, key), False
        elif section == "backward":
            self._backward_done = True

    def _step(self, slot: int, key: StepKey) -> None:
        self._launch("forward", slot, key)
        self._launch("backward", slot, key)

    # What other devices build on -------------------------------------------------

    def versions(self) -> list[int]:
        """Of the segments that weights are packed from, a BatchNorm's states too."""
        return [segment.version for segment in self._packed_from]

    def changed(self, section: Section) -> None:
        """Note that a section has changed, or is about to, what others pack."""
        segment = self.segments.get(_CHANGED.get(section, ""))
        if segment is not None:
            segment.version += 1

    def view(self, tensor: Tensor, slot: int = 0) -> Array:
        """The tensor as a NumPy array over its memory."""
        segment = self.segment(tensor.address.segment, slot)
        begin = tensor.address.offset
        data = segment.data[begin : begin + tensor.nbytes]
        return data.view(tensor.dtype).reshape(tensor.shape)

    def segment(self, name: str, slot: int = 0) -> HostSegment:
        """A segment, for a slot if there is one per slot."""
        copies = self._slotted.get(name)
        return self.segments[name] if copies is None else copies[slot]

    def pointer(self, address: Address, slot: int = 0) -> int:
        """The machine address of a place in a segment."""
        return self.segment(address.segment, slot).data.ctypes.data + address.offset

    def csr_place(self, tensor: CsrTensor, slot: int = 0) -> CsrPlace:
        """Where a CSR matrix is kept, for a slot."""
        return self._csr.setdefault((tensor.name, slot), CsrPlace(tensor))

    def bind(self, rows: Sequence[Row], slot: int) -> list[Bound]:
        """Resolve a section's rows for one slot; devices with kernels override it."""
        bound: list[Bound] = []
        for row in rows:
            if isinstance(row, DefinitionRow):
                view = self._viewer(slot)
                run = bind_definition(row, view, self.device, self._states)
            elif isinstance(row, UpdateRow):
                run = bind_update(row, self._viewer(slot))
            elif isinstance(row, RowSparseUpdateRow):
                run = bind_row_sparse_update(row, self._viewer(slot))
            else:
                raise DeviceError(f"{self.device} has no kernel `{row.kernel}`")
            bound.append(Bound(run, row.reads, row.writes))
        return bound

    def _viewer(self, slot: int) -> View:
        def view(operand: Operand) -> Any:
            if isinstance(operand, CsrTensor):
                return self.csr_place(operand, slot)
            if isinstance(operand, RowSparseTensor):
                return RowSparsePlace(
                    self.view(operand.rows, slot), self.view(operand.values, slot)
                )
            return self.view(operand, slot)

        return view

    def _tensor(self, segment: str, name: str, slot: int) -> Array:
        try:
            return self._face[slot][segment, name]
        except (KeyError, IndexError):
            raise self._no_tensor(segment, name, slot) from None

    def _no_tensor(self, segment: str, name: str, slot: int) -> Exception:
        if self._closed:
            return ClosedError(f"a program on {self.device} was used after close")
        return DeviceError(
            f"{self.device} has no tensor `{name}` in `{segment}` (slot {slot}); "
            f"there are {', '.join(self.plan.tensors.get(segment, ()))}"
        )

    def _bind_sections(self, slot: int) -> dict[Section, list[Bound]]:
        return {
            section: self.bind(rows, slot)
            for section, rows in self.plan.sections.items()
        }

    def _before_backward(self) -> tuple[int, StepKey]:
        if self._forward is None:
            raise GradientError("backward needs a training forward before it")
        slot, key = self._forward
        if self._backward_done:
            # The first backward reused the memory of what the forward had saved.
            self._repack(key)
            self._run("forward", slot, key)
        return slot, key

    def _repack(self, key: StepKey) -> None:
        if not self._packs:
            return
        versions = self.versions()
        if versions != self._packed:
            self._run("pack", 0, key)
            self._packed = versions

    def _run(self, section: Section, slot: int, key: StepKey) -> None:
        with np.errstate(all="ignore"):
            for bound in self._sections[slot].get(section, ()):
                bound.run(key)


def _sources(plan: Plan) -> tuple[str, ...]:
    """The segments of the face that weights are packed from."""
    rows = plan.sections.get("pack", ())
    read = {span.segment for row in rows for span in row.reads}
    return tuple(sorted(read & plan.tensors.keys()))


def _accept(name: str, segment: Segment, nbytes: int) -> HostSegment:
    if not isinstance(segment, HostSegment):
        raise DeviceError(f"segment `{name}` does not lie in host memory")
    if segment.nbytes < nbytes:
        raise DeviceError(
            f"shared segment `{name}` has {segment.nbytes} bytes, {nbytes} are needed"
        )
    return segment
