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
LLVM instructions instead, in which every sum is a value of its own.
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
        self.mask: Any = None

    def emit(self, args: dict[str, Any]) -> None:
        """Write the function's body."""
        build = self.builder
        if self.partial:
            before = ir.Constant(INT64, (self.vectors - 1) * LANES)
            self.mask = first_mask(build, build.sub(args["columns"], before))

        init = self._pointer(args["init"])
        sums = [
            load_unaligned(build, self._vector_at(init, args["init_row"], r, v))
            for r in range(self.rows)
            for v in range(self.vectors)
        ]

        # Rows are reached from one pointer per four rows, as p, p+s, p+2s, p+3s.
        self.offsets = [
            self._opaque(build.mul(args["a_row"], self._int(r))) for r in range(4)
        ]
        a = self._pointer(args["a"])
        groups = [
            build.gep(a, [build.mul(args["a_row"], self._int(r))])
            for r in range(0, self.rows, 4)
        ]
        sums = self._loops(args, 0, groups, self._pointer(args["b"]), sums)

        out = self._pointer(args["out"])
        for i, total in enumerate(sums):
            r, v = divmod(i, self.vectors)
            store_unaligned(build, total, self._vector_at(out, args["out_row"], r, v))
        build.ret_void()

    def _loops(
        self,
        args: dict[str, Any],
        depth: int,
        groups: list[Any],
        b: Any,
        sums: list[Any],
    ) -> list[Any]:
        """Write the loops from `depth` inwards, each run at least once.

        Returns the sums after them.
        """
        if depth == 3:
            return self._step(groups, b, sums)
        build = self.builder
        before = build.block
        body = build.append_basic_block(f"loop{depth}")
        build.branch(body)
        build.position_at_end(body)
        start = [args[f"n{depth}"], b, *groups, *sums]
        here = [build.phi(value.type) for value in start]
        first_sum = 2 + len(groups)
        count, weights, groups = here[0], here[1], here[2:first_sum]
        if depth == 2:
            groups = [self._opaque(group) for group in groups]

        sums = self._loops(args, depth + 1, groups, weights, here[first_sum:])

        left = build.sub(count, self._int(1))
        following = [
            left,
            build.gep(weights, [args[f"b{depth}"]]),
            *[build.gep(group, [args[f"a{depth}"]]) for group in groups],
            *sums,
        ]
        for phi, old, new in zip(here, start, following, strict=True):
            phi.add_incoming(old, before)
            phi.add_incoming(new, build.block)
        after = build.append_basic_block(f"after{depth}")
        build.cbranch(build.icmp_signed(">", left, self._int(0)), body, after)
        build.position_at_end(after)
        return sums

    def _step(self, groups: list[Any], b: Any, sums: list[Any]) -> list[Any]:
        """Write one step's multiply-adds; returns the new sums."""
        build = self.builder
        weights = []
        for v in range(self.vectors):
            place = self._vector_at(b, None, 0, v)
            if self.mask is not None and v == self.vectors - 1:
                weights.append(masked_load(build, place, self.mask))
            else:
                weights.append(load_unaligned(build, place))
        result: list[Any] = []
        for r in range(self.rows):
            place = groups[r // 4]
            if r % 4:
                place = build.gep(place, [self.offsets[r % 4]])
            value = spread(build, build.load(place))
            for weight in weights:
                total = sums[len(result)]
                name = f"llvm.fma.v{LANES}f32"
                result.append(llvm(build, name, VECTOR, value, weight, total))
        return result

    def _opaque(self, value: Any) -> Any:
        """Hide how a value came about.

        Else LLVM finds that the rows' addresses differ by multiples of one stride,
        and reaches each from the one before (a chain of additions as long as the
        tile takes) or from more offsets than there are registers.
        """
        kind = ir.FunctionType(value.type, [value.type])
        return self.builder.asm(kind, "", "=r,0", [value], side_effect=False)

    def _vector_at(self, place: Any, stride: Any, row: int, v: int) -> Any:
        build = self.builder
        if stride is not None:
            place = build.gep(place, [build.mul(stride, self._int(row))])
        place = build.gep(place, [self._int(v * LANES)])
        return build.bitcast(place, VECTOR.as_pointer())

    def _pointer(self, address: Any) -> Any:
        return self.builder.inttoptr(address, FLOAT.as_pointer())

    @staticmethod
    def _int(value: int) -> Any:
        return ir.Constant(INT64, value)
