"""Vectors of float32 and raw memory, for kernels written in Python.

A `Vector` has `LANES` elements. Memory is a byte address (an int64) and an index
in elements. The operators + - * / work on vectors; everything else is a function
below. Each function is lowered by Numba to one or a few LLVM instructions; the
bodies here only carry the types.

Functions ending in `_first` touch the first `count` elements only (count >= LANES
means all), so that the end of a run gives bit for bit what its body gives.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from types import NoneType
from typing import TYPE_CHECKING, Any, TypeVar, get_args, get_origin, get_type_hints

import numpy as np
from llvmlite import ir
from numba import types
from numba.core.imputils import lower_builtin
from numba.core.typing.templates import ConcreteTemplate, infer_global, signature
from numba.extending import models, register_model

from runtime.kernels.cpu.target import host_target

LANES = host_target().lanes

FLOAT = ir.FloatType()
DOUBLE = ir.DoubleType()
INT32 = ir.IntType(32)
INT64 = ir.IntType(64)
VECTOR = ir.VectorType(FLOAT, LANES)
_DOUBLES = ir.VectorType(DOUBLE, LANES)
_INTS = ir.VectorType(INT32, LANES)


F = TypeVar("F", bound=Callable[..., Any])
R = TypeVar("R")


class Vector(types.Type):  # type: ignore[misc]
    """Numba type of `LANES` float32 elements."""

    def __init__(self) -> None:
        super().__init__(name=f"float32x{LANES}")

    if TYPE_CHECKING:  # in kernels the operators are lowered, see below

        def __add__(self, other: Vector) -> Vector: ...
        def __sub__(self, other: Vector) -> Vector: ...
        def __mul__(self, other: Vector) -> Vector: ...
        def __truediv__(self, other: Vector) -> Vector: ...


vector_type = Vector()


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, manager: Any, numba_type: Any) -> None:
        super().__init__(manager, numba_type, VECTOR)


_TYPES: dict[Any, Any] = {
    int: types.int64,
    bool: types.boolean,
    float: types.float64,
    np.float32: types.float32,
    Vector: vector_type,
    NoneType: types.void,
}


def tuple_type(members: Sequence[Any]) -> Any:
    """Numba's type of a tuple, from types as in annotations."""
    return types.Tuple([_TYPES[member] for member in members])


def inlined(function: F) -> F:
    """Make a function available to kernels; LLVM inlines it where that pays.

    Its types are those of its annotations (`int` is int64, `float` is float64; a tuple
    can be returned). Numba compiles it as a part of each kernel that calls it, never on
    its own: that is several times faster than a jitted function per helper.
    """
    hints = get_type_hints(function)
    hint = hints.pop("return")
    several = get_origin(hint) is tuple
    returns = tuple_type(get_args(hint)) if several else _TYPES[hint]
    _define(function, signature(returns, *[_TYPES[hint] for hint in hints.values()]))
    return function


def _define(function: Callable[..., Any], types_of: Any) -> None:
    """Let kernels call a function whose body Numba compiles."""
    _declare(function, types_of)

    @lower_builtin(function, *types_of.args)
    def _(context: Any, builder: Any, _signature: Any, values: Any) -> Any:
        return context.compile_internal(builder, function, types_of, values)


def primitive(
    returns: type[R], *arguments: Any
) -> Callable[[Callable[..., Any]], Callable[..., R]]:
    """Define a function of kernels by the LLVM instructions that it stands for.

    The decorated function gets the builder and the arguments' LLVM values, and
    returns the result's.

    Args:
        returns: type of the result, as in annotations (or a type of Numba).
        arguments: types of the arguments, likewise.
    """

    def define(emit: Callable[..., Any]) -> Callable[..., R]:
        def function(*_: Any) -> R:
            raise TypeError(f"{emit.__name__} only works inside a kernel")

        function.__name__ = emit.__name__
        _overload(function, emit, returns, *arguments)
        return function

    return define


def _overload(key: Any, emit: Callable[..., Any], returns: Any, *args: Any) -> None:
    types_of = signature(*[_TYPES.get(kind, kind) for kind in (returns, *args)])
    _declare(key, types_of)

    @lower_builtin(key, *types_of.args)
    def _(context: Any, builder: Any, _signature: Any, values: Any) -> Any:
        result = emit(builder, *values)
        return context.get_dummy_value() if result is None else result


def _declare(key: Any, types_of: Any) -> None:
    """Tell Numba's type inference of one signature of a function."""
    template = type(
        f"_{key.__name__}_template",
        (ConcreteTemplate,),
        {"key": key, "cases": [types_of]},
    )
    if isinstance(key, type(operator.add)):
        infer_global(key)(template)
    else:
        infer_global(key, types.Function(template))


# Memory ---------------------------------------------------------------------


def pointer(
    builder: Any, address: Any, index: Any, element: Any, to: Any = None
) -> Any:
    """LLVM pointer to element `index` from a byte address."""
    base = builder.inttoptr(address, element.as_pointer())
    place = builder.gep(base, [index])
    return place if to is None else builder.bitcast(place, to.as_pointer())


def load_unaligned(builder: Any, place: Any, align: int = 4) -> Any:
    """Load that assumes no more than the elements' alignment."""
    value = builder.load(place)
    value.align = align
    return value


def store_unaligned(builder: Any, value: Any, place: Any, align: int = 4) -> None:
    """Store that assumes no more than the elements' alignment."""
    builder.store(value, place).align = align


def first_mask(builder: Any, count: Any) -> Any:
    """LLVM mask whose first `count` bits are set."""
    lanes = ir.Constant(_INTS, list(range(LANES)))
    small = builder.trunc(count, INT32)
    return builder.icmp_signed("<", lanes, spread(builder, small, _INTS))


def lane_numbers(numbers: list[int]) -> Any:
    """LLVM constant that a shuffle takes its lanes by."""
    return ir.Constant(ir.VectorType(INT32, len(numbers)), numbers)


def spread(builder: Any, scalar: Any, to: Any = VECTOR) -> Any:
    """LLVM vector whose elements all are `scalar`."""
    undefined = ir.Constant(to, ir.Undefined)
    single = builder.insert_element(undefined, scalar, ir.Constant(INT32, 0))
    zeros = ir.Constant(ir.VectorType(INT32, to.count), [0] * to.count)
    return builder.shuffle_vector(single, undefined, zeros)


def llvm(builder: Any, name: str, returns: Any, *values: Any) -> Any:
    """Call an LLVM intrinsic."""
    kind = ir.FunctionType(returns, [value.type for value in values])
    function = builder.module.globals.get(name)
    if function is None:
        function = ir.Function(builder.module, kind, name)
    return builder.call(function, values)


def masked_load(builder: Any, place: Any, mask: Any, other: Any = None) -> Any:
    """Load of the elements whose mask is set; the others are `other`'s or zero."""
    align = ir.Constant(INT32, 4)
    other = ir.Constant(VECTOR, [0.0] * LANES) if other is None else other
    name = f"llvm.masked.load.v{LANES}f32.p0"
    return llvm(builder, name, VECTOR, place, align, mask, other)


def masked_store(builder: Any, value: Any, place: Any, mask: Any) -> None:
    """Store of the elements whose mask is set."""
    align = ir.Constant(INT32, 4)
    name = f"llvm.masked.store.v{LANES}f32.p0"
    llvm(builder, name, ir.VoidType(), value, place, align, mask)


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


def _whole(builder: Any, count: Any) -> Any:
    return builder.icmp_signed(">=", count, ir.Constant(INT64, LANES))


def emit_load_first(builder: Any, address: Any, index: Any, count: Any) -> Any:
    """LLVM vector for `load_first`."""
    place = pointer(builder, address, index, FLOAT, VECTOR)
    with builder.if_else(_whole(builder, count), likely=True) as (whole, part):
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
    with builder.if_else(_whole(builder, count), likely=True) as (whole, part):
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
    place = pointer(builder, address, index, DOUBLE, _DOUBLES)
    mask = first_mask(builder, count)
    align = ir.Constant(INT32, 8)
    before = llvm(
        builder,
        f"llvm.masked.load.v{LANES}f64.p0",
        _DOUBLES,
        place,
        align,
        mask,
        ir.Constant(_DOUBLES, [0.0] * LANES),
    )
    total = builder.fadd(before, builder.fpext(value, _DOUBLES))
    llvm(
        builder,
        f"llvm.masked.store.v{LANES}f64.p0",
        ir.VoidType(),
        total,
        place,
        align,
        mask,
    )


_BYTE = ir.IntType(8)
_BYTES = ir.VectorType(_BYTE, LANES)
_HALF = ir.VectorType(_BYTE, LANES // 2)


@primitive(Vector, int, int, int)
def load_bytes(builder: Any, address: Any, index: Any, count: Any) -> Any:
    """`LANES` bytes as numbers; if count < LANES half of them, then zeros."""
    with builder.if_else(_whole(builder, count), likely=True) as (whole, part):
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
    value = builder.trunc(builder.fptosi(value, _INTS), _BYTES)
    with builder.if_else(_whole(builder, count), likely=True) as (whole, part):
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

    _overload(key, emit, Vector, Vector, Vector)


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
    doubles = builder.fpext(a, _DOUBLES)
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
    bits = builder.bitcast(a, _INTS)
    fraction = builder.and_(bits, ir.Constant(_INTS, [0x7FFFFF] * LANES))
    half = builder.or_(fraction, ir.Constant(_INTS, [126 << 23] * LANES))
    return builder.bitcast(half, VECTOR)


@primitive(Vector, Vector)
def exponents(builder: Any, a: Any) -> Any:
    """The e of a = m * 2**e, where m is `mantissas`."""
    shifted = builder.lshr(builder.bitcast(a, _INTS), ir.Constant(_INTS, [23] * LANES))
    exponent = builder.sub(shifted, ir.Constant(_INTS, [126] * LANES))
    return builder.sitofp(exponent, VECTOR)


@primitive(Vector, Vector, Vector)
def scale_by_power_of_two(builder: Any, a: Any, shifted: Any) -> Any:
    """a * 2**n, where `shifted` is n + 1.5 * 2**23: its low bits are n's.

    The product must stay a normal number.
    """
    exponent = builder.shl(
        builder.bitcast(shifted, _INTS), ir.Constant(_INTS, [23] * LANES)
    )
    bits = builder.add(builder.bitcast(a, _INTS), exponent)
    return builder.bitcast(bits, VECTOR)
