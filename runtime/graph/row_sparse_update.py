"""The rows of an update whose gradients are row-sparse; see `runtime.graph.update`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from runtime.graph.build import Native
from runtime.graph.face import row_values
from runtime.graph.plan import (
    Address,
    DefinitionRow,
    Layout,
    Row,
    RowSparseTensor,
    RowSparseUpdateRow,
    Tensor,
    UpdateRow,
    round_up,
)

BESIDE = "beside_rows"
WORD = 8  # bytes


@dataclass(frozen=True)
class RowSparseOperands:
    """The row-sparse gradients that an update reads.

    Attributes:
        numbers: Layout of the row numbers of these gradients.
        layout: The layout of dense gradients.
        devices: How many gradients are summed.
        gap: Bytes that are left free between two gradients.
    """

    numbers: Layout
    layout: Layout
    devices: int
    gap: int = 0

    def __contains__(self, name: str) -> bool:
        return name in self.numbers.tensors

    @property
    def segments(self) -> dict[str, Layout]:
        """`gradient_rows.<d>` and `gradient_values.<d>` for each device."""
        if not self.numbers.tensors:
            return {}
        values = row_values(self.numbers, self.layout, self.gap)
        return {
            f"{kind}.{device}": layout.rename(f"{kind}.{device}")
            for device in range(self.devices)
            for kind, layout in (
                ("gradient_rows", self.numbers),
                ("gradient_values", values),
            )
        }

    def of(self, name: str) -> tuple[RowSparseTensor, ...]:
        """One parameter's gradients, by device."""
        segments = self.segments
        return tuple(
            RowSparseTensor(
                segments[f"gradient_rows.{device}"].tensors[name],
                segments[f"gradient_values.{device}"].tensors[name],
            )
            for device in range(self.devices)
        )

    def made_dense(
        self, name: str, offset: int
    ) -> tuple[list[DefinitionRow], tuple[Tensor, ...], int]:
        """Rows that write one parameter's gradients densely beside, from `offset` on.

        Returns:
            The rows, the dense gradients by device, and where they end.
        """
        rows, dense = [], []
        for gradient in self.of(name):
            place = replace(gradient.values, address=Address("beside", offset))
            offset += round_up(place.nbytes)
            rows.append(DefinitionRow.planned("=", name, place, gradient))
            dense.append(place)
        return rows, tuple(dense), offset

    def lazy(
        self,
        row: UpdateRow,
        part: int,
        parts: int,
        offset: int,
        native: Native | None = None,
    ) -> tuple[Row, Sequence[Row], int]:
        """An update of the rows that one parameter's gradients have.

        Args:
            row: The update of the whole parameter.
            part, parts: Which share of these rows.
            offset: Where there is room in the segment of such results.
            native: What the device offers besides NumPy definitions.

        Returns:
            The row that computes the results beside, those that put them in their
            places, and where they end. Kernels compute the numbers of the rows only,
            and then in place.
        """
        numbers = replace(
            self.numbers.tensors[row.node], address=Address(BESIDE, offset)
        )
        offset += round_up(numbers.nbytes)
        compute = RowSparseUpdateRow(
            row.rule,
            row.node,
            row.weight,
            self.of(row.node),
            row.states,
            row.hyper,
            row.reset,
            part,
            parts,
            (),
        )
        if native is not None:
            scratch = Address(BESIDE, offset)
            kernels = native.update_by_rows(compute, numbers, scratch)
            if kernels is not None:
                offset += round_up(WORD * (2 * self.devices + len(row.kept)))
                return kernels[0], kernels[1:], offset
        results = []
        for tensor in row.kept:
            place = replace(tensor, address=Address(BESIDE, offset))
            results.append(RowSparseTensor(numbers, place))
            offset += round_up(tensor.nbytes)
        changes = [
            DefinitionRow.planned("rows=", row.node, target, result)
            for result, target in zip(results, row.kept, strict=True)
        ]
        return replace(compute, results=tuple(results)), changes, offset
