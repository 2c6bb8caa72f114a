"""Vectors of float32 and raw memory, for kernels written in Python.

Memory is a byte address (an int64) and an index in elements. The operators + - * /
work on vectors; everything else is a function below. Each function is lowered to one or
a few LLVM instructions (`runtime.kernels.cpu.lowering`); the bodies here only carry the
types.

Functions ending in `_first` touch the first `count` elements only (count >= LANES
means all), so that the end of a run gives bit for bit what its body gives.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from types import NoneType
from typing import Any

import numpy as np
from llvmlite import ir

from runtime.kernels.cpu.lowering import (
    DOUBLE,
    DOUBLES,
    FLOAT,
    INT32,
    INT64,
    INTS,
    LANES,
    VECTOR,
    Vector,
    first_mask,
    is_whole,
    lane_numbers,
    llvm,
    load_unaligned,
    masked_load,
    masked_store,
    overload,
    pointer,
    primitive,
    spread,
    store_unaligned,
)

# Memory ---------------------------------------------------------------------


@primitive(int, int, int)
def get_integer(builder: Any, address: Any, index: Any) -> Any:
    """int64 at an address."""
    return builder.load(pointer(builder, address, index, INT64))


@primitive(float, int, int)
def get_double(builder: Any, address: Any, index: Any) -> Any:
    """float64 at an address."""
    return builder.load(pointer(builder, address, index, DOUBLE))


@primitive(NoneType, int, int, int)
def put_integer(builder: Any, address: Any, index: Any, value: Any) -> None:
    """Store an int64."""
    builder.store(value, pointer(builder, address, index, INT64))


@primitive(NoneType, int, int, float)
def put_double(builder: Any, address: Any, index: Any, value: Any) -> None:
    """Store a float64."""
    builder.store(value, pointer(builder, address, index, DOUBLE))


@primitive(np.float32, int, int)
def get(builder: Any, address: Any, index: Any) -> Any:
    """float32 at an address."""
    return builder.load(pointer(builder, address, index, FLOAT))


@primitive(NoneType, int, int, np.float32)
def put(builder: Any, address: Any, index: Any, value: Any) -> None:
    """Store a float32."""
    builder.store(value, pointer(builder, address, index, FLOAT))


@primitive(NoneType, int, int)
def prefetch_to_write(builder: Any, address: Any, index: Any) -> None:
    """Fetch the cache line of a float32 that will be written; it need not be there."""
    place = pointer(builder, address, index, FLOAT, ir.IntType(8))
    numbers = [ir.Constant(INT32, number) for number in (1, 2, 1)]
    llvm(builder, "llvm.prefetch.p0", ir.VoidType(), place, *numbers)


@primitive(Vector, int, int)
def load(builder: Any, address: Any, index: Any) -> Any:
    """Vector at an address."""
    return load_unaligned(builder, pointer(builder, address, index, FLOAT, VECTOR))


@primitive(NoneType, int, int, Vector)
def store(builder: Any, address: Any, index: Any, value: Any) -> None:
    """Store a vector."""
    store_unaligned(builder, value, pointer(builder, address, index, FLOAT, VECTOR))


def emit_load_first(builder: Any, address: Any, index: Any, count: Any) -> Any:
    """LLVM vector for `load_first`."""
    place = pointer(builder, address, index, FLOAT, VECTOR)
    with builder.if_else(is_whole(builder, count), likely=True) as (whole, part):
        with whole:
            all_of_it = load_unaligned(builder, place)
            whole_block = builder.block
        with part:
            some_of_it = masked_load(builder, place, first_mask(builder, count))
            part_block = builder.block
    value = builder.phi(VECTOR)
    value.add_incoming(all_of_it, whole_block)
    value.add_incoming(some_of_it, part_block)
    return value


@primitive(Vector, int, int, int)
def load_first(builder: Any, address: Any, index: Any, count: Any) -> Any:
    """First `count` elements of the vector at an address, then zeros."""
    return emit_load_first(builder, address, index, count)


@primitive(Vector, int, int, int, Vector)
def load_first_or(
    builder: Any, address: Any, index: Any, count: Any, other: Any
) -> Any:
    """First `count` elements of the vector at an address, then those of `other`."""
    place = pointer(builder, address, index, FLOAT, VECTOR)
    return masked_load(builder, place, first_mask(builder, count), other)


def emit_store_first(
    builder: Any, address: Any, index: Any, value: Any, count: Any
) -> None:
    """Store as LLVM instructions, for `store_first`."""
    place = pointer(builder, address, index, FLOAT, VECTOR)
    with builder.if_else(is_whole(builder, count), likely=True) as (whole, part):
        with whole:
            store_unaligned(builder, value, place)
        with part:
            masked_store(builder, value, place, first_mask(builder, count))


@primitive(NoneType, int, int, Vector, int)
def store_first(builder: Any, address: Any, index: Any, value: Any, count: Any) -> None:
    """Store the first `count` elements of a vector."""
    emit_store_first(builder, address, index, value, count)


@primitive(NoneType, int, int, Vector, int)
def add_to_first_doubles(
    builder: Any, address: Any, index: Any, value: Any, count: Any
) -> None:
    """Add the first `count` elements of a vector to float64 numbers in memory."""
    place = pointer(builder, address, index, DOUBLE, DOUBLES)
    mask = first_mask(builder, count)
    align = ir.Constant(INT32, 8)
    before = llvm(
        builder,
        f"llvm.masked.load.v{LANES}f64.p0",
        DOUBLES,
        place,
        align,
        mask,
        ir.Constant(DOUBLES, [0.0] * LANES),
    )
    total = builder.fadd(before, builder.fpext(value, DOUBLES))
    llvm(
        builder,
        f"llvm.masked.store.v{LANES}f64.p0",
        ir.VoidType(),
        total,
        place,
        align,
        mask,
    )


@primitive(NoneType, int, int)
def fill_bytes(builder: Any, address: Any, count: Any) -> None:
    """Zero `count` bytes."""
    place = builder.inttoptr(address, ir.IntType(8).as_pointer())
    no = ir.Constant(ir.IntType(1), 0)
    zero = ir.Constant(ir.IntType(8), 0)
    llvm(builder, "llvm.memset.p0.i64", ir.VoidType(), place, zero, count, no)


@primitive(NoneType, int, int)
def prefetch(builder: Any, address: Any, index: Any) -> None:
    """Fetch the cache line of a float32 that is read soon; any address will do."""
    kinds = [ir.Constant(INT32, value) for value in (0, 3, 1)]  # read, keep, data
    place = pointer(builder, address, index, FLOAT)
    llvm(builder, "llvm.prefetch.p0", ir.VoidType(), place, *kinds)


def stack(floats: int) -> Callable[..., Any]:
    """Make a function that gives the address of `floats` floats on the stack."""

    @primitive(int)
    def stack_floats(builder: Any) -> Any:
        with builder.goto_entry_block():
            room = builder.alloca(ir.ArrayType(FLOAT, floats))
        room.align = 64
        return builder.ptrtoint(room, INT64)

    return stack_floats


# Arithmetic -----------------------------------------------------------------

_BINARY = {
    operator.add: "fadd",
    operator.sub: "fsub",
    operator.mul: "fmul",
    operator.truediv: "fdiv",
}


def _define_operator(key: Any, instruction: str) -> None:
    def emit(builder: Any, a: Any, b: Any) -> Any:
        return getattr(builder, instruction)(a, b)

    overload(key, emit, Vector, Vector, Vector)


for _key, _instruction in _BINARY.items():
    _define_operator(_key, _instruction)


@primitive(float, float)
def square_root(builder: Any, a: Any) -> Any:
    """Square root (math.sqrt would call the C library)."""
    return llvm(builder, "llvm.sqrt.f64", DOUBLE, a)


@primitive(Vector, np.float32)
def splat(builder: Any, value: Any) -> Any:
    """Vector whose elements all are `value`."""
    return spread(builder, value)


@primitive(Vector)
def zeros(builder: Any) -> Any:
    """Vector of zeros."""
    return ir.Constant(VECTOR, [0.0] * LANES)


@primitive(Vector, Vector, Vector, Vector)
def fma(builder: Any, a: Any, b: Any, c: Any) -> Any:
    """a * b + c, rounded once."""
    return llvm(builder, f"llvm.fma.v{LANES}f32", VECTOR, a, b, c)


@primitive(Vector, Vector)
def square_roots(builder: Any, a: Any) -> Any:
    """Square root of each element."""
    return llvm(builder, f"llvm.sqrt.v{LANES}f32", VECTOR, a)


@primitive(Vector, Vector)
def absolute(builder: Any, a: Any) -> Any:
    """Absolute value."""
    return llvm(builder, f"llvm.fabs.v{LANES}f32", VECTOR, a)


@primitive(Vector, Vector, Vector)
def copy_sign(builder: Any, a: Any, b: Any) -> Any:
    """Magnitude of `a` with the sign of `b`."""
    return llvm(builder, f"llvm.copysign.v{LANES}f32", VECTOR, a, b)


@primitive(Vector, Vector, Vector, Vector, Vector)
def where_less(builder: Any, a: Any, b: Any, yes: Any, no: Any) -> Any:
    """`yes` where a < b, `no` elsewhere (also where a or b is NaN)."""
    return builder.select(builder.fcmp_ordered("<", a, b), yes, no)


@primitive(Vector, Vector, Vector, Vector, Vector)
def where_equal(builder: Any, a: Any, b: Any, yes: Any, no: Any) -> Any:
    """`yes` where a == b, `no` elsewhere."""
    return builder.select(builder.fcmp_ordered("==", a, b), yes, no)


@primitive(Vector, Vector, Vector, Vector, Vector)
def where_at_most(builder: Any, a: Any, b: Any, yes: Any, no: Any) -> Any:
    """`yes` where a <= b, `no` elsewhere (also where a or b is NaN)."""
    return builder.select(builder.fcmp_ordered("<=", a, b), yes, no)


@primitive(Vector, Vector, Vector)
def larger(builder: Any, a: Any, b: Any) -> Any:
    """The larger one of each two elements; NaN where one of them is."""
    larger_one = builder.select(builder.fcmp_ordered(">", a, b), a, b)
    return builder.select(builder.fcmp_unordered("uno", a, a), a, larger_one)


@primitive(Vector, Vector, int)
def keep_first(builder: Any, a: Any, count: Any) -> Any:
    """First `count` elements of `a`, then zeros."""
    zero = ir.Constant(VECTOR, [0.0] * LANES)
    return builder.select(first_mask(builder, count), a, zero)


def _fold(builder: Any, a: Any, combine: Callable[[Any, Any], Any]) -> Any:
    """Combine the elements pairwise, always in the same order."""
    half = LANES // 2
    while half:
        order = [(lane + half) % LANES for lane in range(LANES)]
        a = combine(a, builder.shuffle_vector(a, a, lane_numbers(order)))
        half //= 2
    return builder.extract_element(a, ir.Constant(INT32, 0))


@primitive(np.float32, Vector)
def sum_of(builder: Any, a: Any) -> Any:
    """Sum of the elements."""
    return _fold(builder, a, builder.fadd)


@primitive(float, Vector)
def square_sum(builder: Any, a: Any) -> Any:
    """Sum of the elements' squares, in float64."""
    doubles = builder.fpext(a, DOUBLES)
    return _fold(builder, builder.fmul(doubles, doubles), builder.fadd)


@primitive(np.float32, Vector)
def largest_of(builder: Any, a: Any) -> Any:
    """Largest element (unspecified if one is NaN)."""
    return _fold(
        builder, a, lambda x, y: builder.select(builder.fcmp_ordered(">", x, y), x, y)
    )


@primitive(Vector, Vector)
def mantissas(builder: Any, a: Any) -> Any:
    """The m in [0.5, 1) of a = m * 2**e, for positive normal numbers."""
    bits = builder.bitcast(a, INTS)
    fraction = builder.and_(bits, ir.Constant(INTS, [0x7FFFFF] * LANES))
    half = builder.or_(fraction, ir.Constant(INTS, [126 << 23] * LANES))
    return builder.bitcast(half, VECTOR)


@primitive(Vector, Vector)
def exponents(builder: Any, a: Any) -> Any:
    """The e of a = m * 2**e, where m is `mantissas`."""
    shifted = builder.lshr(builder.bitcast(a, INTS), ir.Constant(INTS, [23] * LANES))
    exponent = builder.sub(shifted, ir.Constant(INTS, [126] * LANES))
    return builder.sitofp(exponent, VECTOR)


@primitive(Vector, Vector, Vector)
def scale_by_power_of_two(builder: Any, a: Any, shifted: Any) -> Any:
    """a * 2**n, where `shifted` is n + 1.5 * 2**23: its low bits are n's.

    The product must stay a normal number.
    """
    exponent = builder.shl(
        builder.bitcast(shifted, INTS), ir.Constant(INTS, [23] * LANES)
    )
    bits = builder.add(builder.bitcast(a, INTS), exponent)
    return builder.bitcast(bits, VECTOR)
