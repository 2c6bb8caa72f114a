"""Tuples of addresses, numbers and vectors, for kernels that are made from a table.

Each function here makes a primitive for tuples of a given length.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import NoneType
from typing import Any

from llvmlite import ir

from runtime.kernels.cpu.lowering import (
    DOUBLE,
    INT64,
    Vector,
    pointer,
    primitive,
    tuple_type,
)
from runtime.kernels.cpu.vector import (
    emit_load_first,
    emit_store_first,
)


def tuple_at(kind: type[int] | type[float], length: int) -> Callable[[int], Any]:
    """Make a function that reads so many int64 or float64 from an address."""
    element = INT64 if kind is int else DOUBLE

    @primitive(tuple_type([kind] * length), int)
    def read_tuple(builder: Any, address: Any) -> Any:
        indexes = [ir.Constant(INT64, k) for k in range(length)]
        places = [pointer(builder, address, index, element) for index in indexes]
        return packed(builder, [builder.load(place) for place in places])

    return read_tuple


def rule_arguments(vectors: int, numbers: int) -> Callable[..., Any]:
    """Make a function (g, places, scalars, i, count) that gives a rule's arguments.

    They are the vector g, those of the first `count` elements from i on at each of the
    places, and the scalars.
    """
    returns = tuple_type([Vector] * (1 + vectors) + [float] * numbers)
    places_type, scalars_type = (
        tuple_type([int] * vectors),
        tuple_type([float] * numbers),
    )

    @primitive(returns, Vector, places_type, scalars_type, int, int)
    def arguments(
        builder: Any, g: Any, places: Any, scalars: Any, i: Any, count: Any
    ) -> Any:
        at = [builder.extract_value(places, k) for k in range(vectors)]
        loaded = [emit_load_first(builder, place, i, count) for place in at]
        given = [builder.extract_value(scalars, k) for k in range(numbers)]
        return packed(builder, [g, *loaded, *given])

    return arguments


def store_vectors(places: int, vectors: int) -> Callable[..., None]:
    """Make a function (places, i, values, count) that stores `vectors` vectors.

    They go to the first of the `places` places.
    """
    places_type, values_type = (
        tuple_type([int] * places),
        tuple_type([Vector] * vectors),
    )

    @primitive(NoneType, places_type, int, values_type, int)
    def store_all(builder: Any, at: Any, i: Any, values: Any, count: Any) -> None:
        for k in range(vectors):
            value = builder.extract_value(values, k)
            emit_store_first(builder, builder.extract_value(at, k), i, value, count)

    return store_all


def packed(builder: Any, values: Sequence[Any]) -> Any:
    """An LLVM value of a tuple's members, as Numba keeps tuples of such types."""
    kinds = [value.type for value in values]
    same = all(kind == kinds[0] for kind in kinds)
    whole = ir.ArrayType(kinds[0], len(kinds)) if same else ir.LiteralStructType(kinds)
    result = ir.Constant(whole, ir.Undefined)
    for k, value in enumerate(values):
        result = builder.insert_value(result, value, k)
    return result
