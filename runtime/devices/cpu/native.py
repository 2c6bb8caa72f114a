"""What the CPU device offers to the compiler: steps, and conversions between forms."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from runtime.devices.cpu import cost
from runtime.devices.cpu.blocks import in_blocks
from runtime.devices.cpu.elementwise import elementwise
from runtime.devices.cpu.select import Selection
from runtime.devices.cpu.update import accumulate_row, update_rows
from runtime.devices.cpu.update_by_rows import lazy_rows
from runtime.graph.build import Builder, Step
from runtime.graph.draft import Dense, Draft, Form, Image
from runtime.graph.plan import (
    Address,
    NativeRow,
    RowSparseUpdateRow,
    Tensor,
    UpdateRow,
)
from runtime.kernels.cpu.target import host_target


@dataclass(frozen=True)
class CpuNative:
    """See `runtime.graph.build.Native`.

    Attributes:
        cache_bytes: What a core has for itself.
    """

    cache_bytes: int = field(default_factory=lambda: host_target().cache_bytes)

    def select(self, b: Builder) -> Sequence[Step]:
        return Selection(b).steps()

    def to_image(self, b: Builder, source: Dense, target: Image, node: str) -> None:
        images, channels, height, width = target.shape
        b.kernel(
            "to_image",
            node,
            ("y",),
            cost.floats(2 * images * target.image),
            x=source.at,
            **target.fields("y"),
            images=images,
            channels=channels,
            height=height,
            width=width,
        )

    def from_image(self, b: Builder, source: Image, target: Dense, node: str) -> None:
        images, channels, height, width = source.shape
        b.kernel(
            "from_image",
            node,
            ("y",),
            cost.floats(2 * images * source.image),
            **source.fields("x"),
            y=target.at,
            images=images,
            channels=channels,
            height=height,
            width=width,
        )

    def add(self, b: Builder, a: Form, c: Form, target: Form, node: str) -> bool:
        if not _alike(a, c, target):
            return False
        elementwise(b, "add", node, "y", {"a": a, "b": c, "y": target})
        return True

    def copy(self, b: Builder, source: Form, target: Form, node: str) -> bool:
        if not _alike(source, target):
            return False
        elementwise(b, "copy", node, "y", {"x": source, "y": target})
        return True

    def arrange(self, rows: Sequence[Draft]) -> list[Draft]:
        return in_blocks(rows, self.cache_bytes)

    def update(self, row: UpdateRow) -> Sequence[NativeRow] | None:
        return update_rows(row)

    def update_by_rows(
        self, row: RowSparseUpdateRow, numbers: Tensor, scratch: Address
    ) -> tuple[NativeRow, NativeRow] | None:
        return lazy_rows(row, numbers, scratch)

    def accumulate(
        self, source: Tensor, target: Tensor, add: bool, node: str
    ) -> NativeRow | None:
        return accumulate_row(source, target, add, node)


def _alike(*forms: Form) -> bool:
    """Whether all are images, or all dense float32."""
    if all(isinstance(form, Image) for form in forms):
        return True
    return all(isinstance(form, Dense) and form.dtype == "float32" for form in forms)
