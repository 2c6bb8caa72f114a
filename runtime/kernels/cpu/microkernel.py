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

A tile of one vector needs one load per multiply-add, which is as much as a core can
do. Where the middle loop's steps in a are those of the rows (a1 == a_row, as in the
columns of a convolution's window), the tiles with three taps do three of its steps
at once: every scalar then serves up to three neighboring rows.

Numba keeps arrays in memory, so that it cannot express this; the tile is written as
LLVM instructions instead, in which every sum is a value of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from types import NoneType
from typing import Any

from llvmlite import ir

from runtime.kernels.cpu.lowering import (
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
from runtime.kernels.cpu.tile_shapes import TILE_SHAPES, TileShape

_ARGUMENTS = (
    *("a", "a_row", "b", "n0", "a0", "b0", "n1", "a1", "b1", "n2", "a2", "b2"),
    *("init", "init_row", "out", "out_row", "more", "rectified", "columns"),
)
_FUNCTION = ir.FunctionType(ir.VoidType(), [INT64] * len(_ARGUMENTS))


def tile(shape: TileShape) -> Callable[..., None]:
    """Make the function of kernels that computes one register tile.

    Its arguments are (rows, a, a_row, b, n0, a0, b0, n1, a1, b1, n2, a2, b2, init,
    init_row, out, out_row, more, rectified, columns): byte addresses, strides in
    elements, and trip counts >= 1; 1 <= rows <= `shape.max_rows`. All vectors of init
    are read and of out are written. At the end the row `more` is added to every row,
    unless 0, and what is below zero becomes zero if `rectified` is not 0. If the shape
    is partial, b is read in its first `columns` columns only; else `columns` is not
    used. If it has taps, n1 must be their number and a1 the same as a_row.
    """

    @primitive(NoneType, *[int] * (1 + len(_ARGUMENTS)))
    def compute_tile(builder: Any, rows: Any, *arguments: Any) -> None:
        table = builder.module.globals.get(shape.symbol)
        if table is None:
            kind = ir.ArrayType(_FUNCTION.as_pointer(), shape.max_rows + 1)
            table = ir.GlobalVariable(builder.module, kind, shape.symbol)
        place = builder.gep(table, [ir.Constant(INT64, 0), rows])
        builder.call(builder.load(place), arguments)

    return compute_tile


def tiles_module() -> str:
    """LLVM module of all tile functions.

    It is compiled once. Kernels find the functions in tables named by the shapes'
    symbols: the addresses for 0 (none), 1, ... max_rows rows.
    """
    module = ir.Module("tiles")
    for shape in TILE_SHAPES:
        functions: list[Any] = [ir.Constant(_FUNCTION.as_pointer(), None)]
        for rows in range(1, shape.max_rows + 1):
            name = f"{shape.symbol}_{rows}"
            function = ir.Function(module, _FUNCTION, name)
            function.linkage = "internal"
            builder = ir.IRBuilder(function.append_basic_block("entry"))
            arguments = dict(zip(_ARGUMENTS, function.args, strict=True))
            _Tile(builder, rows, shape).emit(arguments)
            functions.append(function)
        kind = ir.ArrayType(_FUNCTION.as_pointer(), len(functions))
        table = ir.GlobalVariable(module, kind, shape.symbol)
        table.initializer = ir.Constant(kind, functions)
        table.global_constant = True
    return str(module)


class _Tile:
    """Writes the instructions of one tile size."""

    def __init__(self, builder: Any, rows: int, shape: TileShape) -> None:
        self.builder = builder
        self.rows = rows
        self.shape = shape
        self.vectors = shape.vectors
        self.offsets: list[Any] = []
        self.mask: Any = None

    def emit(self, args: dict[str, Any]) -> None:
        """Write the function's body."""
        build = self.builder
        if self.shape.partial:
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
            for r in range(0, self.rows + self.shape.taps - 1, 4)
        ]
        sums = self._loops(args, 0, groups, self._pointer(args["b"]), sums)
        sums = self._unless_zero(args["more"], sums, self._added)
        sums = self._unless_zero(args["rectified"], sums, self._rectified)

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
            return self._step(groups, b, args["b1"], sums)
        if depth == 1 and self.shape.taps > 1:
            return self._loops(args, 2, groups, b, sums)
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
        build.cbranch(build.icmp_signed("!=", left, self._int(0)), body, after)
        build.position_at_end(after)
        return sums

    def _step(
        self, groups: list[Any], b: Any, tap_step: Any, sums: list[Any]
    ) -> list[Any]:
        """Write one step's multiply-adds; returns the new sums."""
        build = self.builder
        weights = [
            [self._weight(b, tap_step, tap, v) for v in range(self.vectors)]
            for tap in range(self.shape.taps)
        ]
        sums = list(sums)
        for position in range(self.rows + self.shape.taps - 1):
            place = groups[position // 4]
            if position % 4:
                place = build.gep(place, [self.offsets[position % 4]])
            value = spread(build, build.load(place))
            for tap, row_weights in enumerate(weights):
                row = position - tap
                if 0 <= row < self.rows:
                    for v, weight in enumerate(row_weights):
                        i = row * self.vectors + v
                        name = f"llvm.fma.v{LANES}f32"
                        sums[i] = llvm(build, name, VECTOR, value, weight, sums[i])
        return sums

    def _unless_zero(
        self, flag: Any, sums: list[Any], change: Callable[[Any, list[Any]], list[Any]]
    ) -> list[Any]:
        """Write what changes the sums if a flag is set; returns them after that."""
        build = self.builder
        before = build.block
        with build.if_then(build.icmp_signed("!=", flag, self._int(0))):
            changed = change(flag, sums)
            inside = build.block
        results = []
        for old, new in zip(sums, changed, strict=True):
            phi = build.phi(VECTOR)
            phi.add_incoming(old, before)
            phi.add_incoming(new, inside)
            results.append(phi)
        return results

    def _added(self, address: Any, sums: list[Any]) -> list[Any]:
        build, place = self.builder, self._pointer(address)
        row = [
            load_unaligned(build, self._vector_at(place, None, 0, v))
            for v in range(self.vectors)
        ]
        return [build.fadd(x, row[i % self.vectors]) for i, x in enumerate(sums)]

    def _rectified(self, _: Any, sums: list[Any]) -> list[Any]:
        """As `activation.rectify`: NaN stays."""
        build, zero = self.builder, ir.Constant(VECTOR, [0.0] * LANES)
        return [build.select(build.fcmp_ordered("<", x, zero), zero, x) for x in sums]

    def _weight(self, b: Any, tap_step: Any, tap: int, v: int) -> Any:
        """One vector of b."""
        place = self._vector_at(b, tap_step if tap else None, tap, v)
        if self.mask is not None and v == self.vectors - 1:
            return masked_load(self.builder, place, self.mask)
        return load_unaligned(self.builder, place)

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
