"""How kernels in Python become LLVM instructions.

`inlined` makes a function of Python a part of the kernels that call it, `primitive`
defines one by the instructions that it stands for; the rest is what primitives are
written with. A `Vector` has `LANES` elements of float32.

Next: `runtime.kernels.cpu.vector`.
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
DOUBLES = ir.VectorType(DOUBLE, LANES)
INTS = ir.VectorType(INT32, LANES)


F = TypeVar("F", bound=Callable[..., Any])
R = TypeVar("R")


class Vector(types.Type):  # type: ignore[misc]
    """Numba type of `LANES` float32 elements."""

    def __init__(self) -> None:
        super().__init__(name=f"float32x{LANES}")

    if TYPE_CHECKING:  # in kernels the operators are lowered: `vector`

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
        overload(function, emit, returns, *arguments)
        return function

    return define


def overload(key: Any, emit: Callable[..., Any], returns: Any, *args: Any) -> None:
    """Let kernels call a function, or use an operator, that instructions define."""
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


# Instructions ---------------------------------------------------------------


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
    lanes = ir.Constant(INTS, list(range(LANES)))
    small = builder.trunc(count, INT32)
    return builder.icmp_signed("<", lanes, spread(builder, small, INTS))


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


def is_whole(builder: Any, count: Any) -> Any:
    """LLVM truth of whether `count` elements fill a vector."""
    return builder.icmp_signed(">=", count, ir.Constant(INT64, LANES))
