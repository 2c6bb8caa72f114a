"""The register tile that all matrix products and convolutions are made of.

One tile computes, for `rows` rows and `vectors` vectors of columns,

    out[r, :] = init[r, :] + sum over (i, j, l) of
                a[r * a_row + i * a0 + j * a1 + l * a2]
                * b[i * b0 + j * b1 + l * b2, :]

with every sum kept in a register: per step it loads `vectors` vectors of b,
broadcasts `rows` scalars of a and does rows * vectors multiply-adds, which keeps
both multiply-add units of a core busy. A matrix product needs the innermost of the
three loops only; a convolution walks the rows and columns of its window with the
others, its weight gradient the images, rows and pixels.

Numba keeps arrays in memory, so that it cannot express this; the tile is written as
LLVM instructions instead. The accumulators are variables of one vector each, which
LLVM promotes to registers.
"""

from __future__ import annotations

from collections.abc import Callable
from types import NoneType
from typing import Any

from llvmlite import ir

from runtime.kernels.cpu.target import host_target
from runtime.kernels.cpu.vector import (
    FLOAT,
    INT64,
    LANES,
    VECTOR,
    first_mask,
    llvm,
    load_unaligned,
    masked_load,
    primitive,
    spread,
    store_unaligned,
)

_ARGUMENTS = tuple(
    "a a_row b n0 a0 b0 n1 a1 b1 n2 a2 b2 init init_row out out_row columns".split()  # noqa: SIM905
)
_FUNCTION = ir.FunctionType(ir.VoidType(), [INT64] * len(_ARGUMENTS))

# (vectors, partial) of the tiles that exist, and the symbols of their tables: the
# addresses of the functions for 0 (none), 1, ... max_rows(vectors) rows.
WIDTHS = ((1, False), (2, False), (1, True), (2, True))


def symbol(vectors: int, partial: bool) -> str:
    """Name of the table of the tile functions of one width."""
    return f"asyncmod_tiles_{vectors}{'_partial' if partial else ''}"


def max_rows(vectors: int) -> int:
    """Rows of the largest tile of this width."""
    return host_target().rows(vectors)


def tile(vectors: int, partial: bool = False) -> Callable[..., None]:
    """Make the function of kernels that computes one register tile.

    Its arguments are (rows, a, a_row, b, n0, a0, b0, n1, a1, b1, n2, a2, b2, init,
    init_row, out, out_row, columns): byte addresses, strides in elements, and trip
    counts >= 1; 1 <= rows <= `max_rows(vectors)`. All `vectors` vectors of init are
    read and of out are written. With `partial`, b is read in its first `columns`
    columns only; else `columns` is not used.

    Args:
        vectors: width of the tile in vectors, 1 or 2.
        partial: whether b's rows may be shorter than the tile is wide.
    """

    @primitive(NoneType, *[int] * (1 + len(_ARGUMENTS)))
    def compute_tile(builder: Any, rows: Any, *arguments: Any) -> None:
        name = symbol(vectors, partial)
        table = builder.module.globals.get(name)
        if table is None:
            kind = ir.ArrayType(_FUNCTION.as_pointer(), max_rows(vectors) + 1)
            table = ir.GlobalVariable(builder.module, kind, name)
        place = builder.gep(table, [ir.Constant(INT64, 0), rows])
        builder.call(builder.load(place), arguments)

    return compute_tile


def tiles_module() -> str:
    """LLVM module of all tile functions and their tables.

    It is compiled once; the kernels refer to its tables by symbol.
    """
    module = ir.Module("tiles")
    for vectors, partial in WIDTHS:
        functions: list[Any] = [ir.Constant(_FUNCTION.as_pointer(), None)]
        for rows in range(1, max_rows(vectors) + 1):
            name = f"{symbol(vectors, partial)}_{rows}"
            function = ir.Function(module, _FUNCTION, name)
            function.linkage = "internal"
            builder = ir.IRBuilder(function.append_basic_block("entry"))
            arguments = dict(zip(_ARGUMENTS, function.args, strict=True))
            _Tile(builder, rows, vectors, partial).emit(arguments)
            functions.append(function)
        kind = ir.ArrayType(_FUNCTION.as_pointer(), len(functions))
        table = ir.GlobalVariable(module, kind, symbol(vectors, partial))
        table.initializer = ir.Constant(kind, functions)
        table.global_constant = True
    return str(module)


class _Tile:
    """Writes the instructions of one tile size."""

    def __init__(self, builder: Any, rows: int, vectors: int, partial: bool) -> None:
        self.builder = builder
        self.rows = rows
        self.vectors = vectors
        self.partial = partial
        self.offsets: list[Any] = []

    def emit(self, args: dict[str, Any]) -> None:
        """Write the function's body."""
        build = self.builder
        sums = [
            [build.alloca(VECTOR) for _ in range(self.vectors)]
            for _ in range(self.rows)
        ]
        mask = None
        if self.partial:
            before = ir.Constant(INT64, (self.vectors - 1) * LANES)
            mask = first_mask(build, build.sub(args["columns"], before))

        init = self._pointer(args["init"])
        for r, row in enumerate(sums):
            start = build.gep(init, [build.mul(args["init_row"], self._int(r))])
            for v, variable in enumerate(row):
                build.store(load_unaligned(build, self._vector_at(start, v)), variable)

        def step(a: Any, b: Any) -> None:
            weights = []
            for v in range(self.vectors):
                place = self._vector_at(b, v)
                if mask is not None and v == self.vectors - 1:
                    weights.append(masked_load(build, place, mask))
                else:
                    weights.append(load_unaligned(build, place))
            for r, row in enumerate(sums):
                scalar = build.load(self._row_of(a, r))
                value = spread(build, scalar)
                for weight, variable in zip(weights, row, strict=True):
                    total = build.load(variable)
                    name = f"llvm.fma.v{LANES}f32"
                    total = llvm(build, name, VECTOR, value, weight, total)
                    build.store(total, variable)

        # Rows are reached from one pointer per four rows, as p, p+s, p+2s, p+3s.
        self.offsets = [
            self._opaque(build.mul(args["a_row"], self._int(r))) for r in range(4)
        ]
        groups = [
            build.gep(
                self._pointer(args["a"]),
                [self._opaque(build.mul(args["a_row"], self._int(r)))],
            )
            for r in range(0, self.rows, 4)
        ]
        self._loops(args, 0, groups, self._pointer(args["b"]), step)

        out = self._pointer(args["out"])
        for r, row in enumerate(sums):
            start = build.gep(out, [build.mul(args["out_row"], self._int(r))])
            for v, variable in enumerate(row):
                store_unaligned(build, build.load(variable), self._vector_at(start, v))
        build.ret_void()

    def _loops(
        self,
        args: dict[str, Any],
        depth: int,
        groups: list[Any],
        b: Any,
        step: Callable[[list[Any], Any], None],
    ) -> None:
        """Write the loops from `depth` inwards; each runs at least once."""
        if depth == 3:
            step(groups, b)
            return
        build = self.builder
        entry = build.block
        body = build.append_basic_block(f"loop{depth}")
        after = build.append_basic_block(f"after{depth}")
        build.branch(body)
        build.position_at_end(body)
        count = build.phi(INT64)
        count.add_incoming(args[f"n{depth}"], entry)
        here = [build.phi(group.type) for group in groups]
        for phi, group in zip(here, groups, strict=True):
            phi.add_incoming(group, entry)
        weights = build.phi(b.type)
        weights.add_incoming(b, entry)

        self._loops(args, depth + 1, list(here), weights, step)

        end = build.block
        for phi in here:
            phi.add_incoming(build.gep(phi, [args[f"a{depth}"]]), end)
        weights.add_incoming(build.gep(weights, [args[f"b{depth}"]]), end)
        left = build.sub(count, self._int(1))
        count.add_incoming(left, end)
        build.cbranch(build.icmp_signed(">", left, self._int(0)), body, after)
        build.position_at_end(after)

    def _row_of(self, groups: list[Any], row: int) -> Any:
        if row % 4 == 0:
            return groups[row // 4]
        return self.builder.gep(groups[row // 4], [self.offsets[row % 4]])

    def _opaque(self, value: Any) -> Any:
        """Hide how a value came about.

        Else LLVM finds that the rows' addresses differ by one stride, and reaches
        each from the one before: a chain of additions as long as the tile takes.
        """
        kind = ir.FunctionType(INT64, [INT64])
        return self.builder.asm(kind, "", "=r,0", [value], side_effect=False)

    def _vector_at(self, place: Any, v: int) -> Any:
        build = self.builder
        return build.bitcast(
            build.gep(place, [self._int(v * LANES)]), VECTOR.as_pointer()
        )

    def _pointer(self, address: Any) -> Any:
        return self.builder.inttoptr(address, FLOAT.as_pointer())

    @staticmethod
    def _int(value: int) -> Any:
        return ir.Constant(INT64, value)
