"""Products of matrices as rows of `gemm`."""

from __future__ import annotations

from dataclasses import dataclass

from runtime.devices.cpu import cost
from runtime.graph.build import Builder
from runtime.graph.draft import At, Dense
from runtime.graph.plan import Section
from runtime.kernels.cpu.table import panel_width, panels_size


@dataclass(frozen=True, slots=True)
class Matrix:
    """Float32 numbers in memory as a matrix.

    Attributes:
        at: Where the first one lies.
        row, column: Elements from one row, from one column to the next.
    """

    at: At
    rows: int
    columns: int
    row: int
    column: int = 1

    @classmethod
    def of(cls, data: Dense, rows: int, columns: int) -> Matrix:
        """A dense array, row by row."""
        return cls(data.at, rows, columns, columns)

    @property
    def transpose(self) -> Matrix:
        return Matrix(self.at, self.columns, self.rows, self.column, self.row)


@dataclass(frozen=True, slots=True)
class Panels:
    """A right-hand factor as `gemm` reads it.

    Attributes:
        columns: How many columns it has.
        size: Elements from one panel to the next.
        row: Elements from one row of a panel to the next.
    """

    at: At
    columns: int
    size: int
    row: int

    def below(self, first: int) -> Panels:
        """The rows from `first` on."""
        at = At(self.at.buffer, self.at.offset + 4 * first * self.row)
        return Panels(at, self.columns, self.size, self.row)


def pack(
    b: Builder,
    name: str,
    matrix: Matrix,
    section: Section | None = None,
    segment: str = "arena",
) -> Panels:
    """Put a matrix into panels."""
    k, n = matrix.rows, matrix.columns
    panels = b.new_dense(
        f"{matrix.at.buffer.name}.panels", (panels_size(k, n),), "float32"
    )
    panels.buffer.segment = segment
    b.kernel(
        "pack_panels",
        name,
        ("panels",),
        cost.floats(2 * k * n),
        section,
        b=matrix.at,
        b_row=matrix.row,
        b_column=matrix.column,
        panels=panels.at,
        k=k,
        n=n,
    )
    return Panels(panels.at, n, k * panel_width(), panel_width())


def panels_in_place(matrix: Matrix) -> Panels | None:
    """A matrix that consists of panels where it lies, if it does."""
    if matrix.column != 1 or matrix.columns % panel_width():
        return None
    return Panels(matrix.at, matrix.columns, panel_width(), matrix.row)


def multiply(
    b: Builder,
    name: str,
    x: Matrix,
    panels: Panels,
    target: At,
    *,
    transposed: bool = False,
    bias: At | None = None,
    mask: At | None = None,
    epilogue: int = 0,
    accumulate: bool = False,
) -> None:
    """target = x times the panels; with `transposed`, the product's transpose.

    See the kernel `gemm` for the rest.
    """
    row = x.rows if transposed else panels.columns
    b.kernel(
        "gemm",
        name,
        ("c",),
        cost.multiply_adds(x.rows * x.columns * panels.columns),
        a=x.at,
        a_row=x.row,
        a_column=x.column,
        panels=panels.at,
        panel_size=panels.size,
        panel_row=panels.row,
        c=target,
        c_row=row,
        m=x.rows,
        k=x.columns,
        n=panels.columns,
        bias=0 if bias is None else bias,
        mask=0 if mask is None else mask,
        mask_row=0 if mask is None else row,
        epilogue=epilogue,
        accumulate=int(accumulate),
        transposed=int(transposed),
    )
