"""Vectors of numbers that memory keeps in fewer bits: bytes, and float16."""

from __future__ import annotations

from types import NoneType
from typing import Any

from llvmlite import ir

from runtime.kernels.cpu.lowering import (
    INT32,
    INTS,
    LANES,
    VECTOR,
    Vector,
    first_mask,
    is_whole,
    lane_numbers,
    llvm,
    load_unaligned,
    pointer,
    primitive,
    store_unaligned,
)

_BYTE = ir.IntType(8)
_BYTES = ir.VectorType(_BYTE, LANES)
_HALF = ir.VectorType(_BYTE, LANES // 2)


@primitive(Vector, int, int, int)
def load_bytes(builder: Any, address: Any, index: Any, count: Any) -> Any:
    """`LANES` bytes as numbers; if count < LANES half of them, then zeros."""
    with builder.if_else(is_whole(builder, count), likely=True) as (whole, part):
        with whole:
            place = pointer(builder, address, index, _BYTE, _BYTES)
            all_of_it = load_unaligned(builder, place, 1)
            whole_block = builder.block
        with part:
            place = pointer(builder, address, index, _BYTE, _HALF)
            half = load_unaligned(builder, place, 1)
            zero = ir.Constant(_HALF, [0] * (LANES // 2))
            both = lane_numbers(list(range(LANES)))
            half_of_it = builder.shuffle_vector(half, zero, both)
            part_block = builder.block
    value = builder.phi(_BYTES)
    value.add_incoming(all_of_it, whole_block)
    value.add_incoming(half_of_it, part_block)
    return builder.uitofp(value, VECTOR)


@primitive(NoneType, int, int, Vector, int)
def store_bytes(builder: Any, address: Any, index: Any, value: Any, count: Any) -> None:
    """Store numbers 0..255 as bytes; if count < LANES the first half of them."""
    value = builder.trunc(builder.fptosi(value, INTS), _BYTES)
    with builder.if_else(is_whole(builder, count), likely=True) as (whole, part):
        with whole:
            place = pointer(builder, address, index, _BYTE, _BYTES)
            store_unaligned(builder, value, place, 1)
        with part:
            first = lane_numbers(list(range(LANES // 2)))
            place = pointer(builder, address, index, _BYTE, _HALF)
            half = builder.shuffle_vector(value, value, first)
            store_unaligned(builder, half, place, 1)


_HALVES = ir.VectorType(ir.HalfType(), LANES)
_SHORT = ir.IntType(16)
_SHORTS = ir.VectorType(_SHORT, LANES)


@primitive(Vector, int, int, int)
def load_first_halves(builder: Any, address: Any, index: Any, count: Any) -> Any:
    """First `count` float16 elements at an address, then zeros."""
    value = llvm(
        builder,
        f"llvm.masked.load.v{LANES}i16.p0",
        _SHORTS,
        pointer(builder, address, index, _SHORT, _SHORTS),
        ir.Constant(INT32, 2),
        first_mask(builder, count),
        ir.Constant(_SHORTS, [0] * LANES),
    )
    return builder.fpext(builder.bitcast(value, _HALVES), VECTOR)


@primitive(NoneType, int, int, Vector, int)
def store_first_halves(
    builder: Any, address: Any, index: Any, value: Any, count: Any
) -> None:
    """Store the first `count` elements, rounded to float16."""
    llvm(
        builder,
        f"llvm.masked.store.v{LANES}i16.p0",
        ir.VoidType(),
        builder.bitcast(builder.fptrunc(value, _HALVES), _SHORTS),
        pointer(builder, address, index, _SHORT, _SHORTS),
        ir.Constant(INT32, 2),
        first_mask(builder, count),
    )


@primitive(Vector, Vector)
def rounded_to_halves(builder: Any, a: Any) -> Any:
    """The elements as float16 has them."""
    return builder.fpext(builder.fptrunc(a, _HALVES), VECTOR)
