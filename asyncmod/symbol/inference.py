"""Shapes and dtypes of a whole symbol, in MXNet's three lists."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import DTypeLike

from asyncmod.errors import ArgumentError, ArgumentTypeError
from runtime.errors import ShapeError
from runtime.graph.infer import infer_dtypes, infer_shapes
from runtime.graph.ir import Entry, Graph, Node
from runtime.graph.shapes import is_known

T = TypeVar("T")
KnownShape = Sequence[int] | None
# Arguments, outputs, auxiliary states.
Triple = tuple[list[T], list[T], list[T]] | tuple[None, None, None]


def shapes(
    graph: Graph,
    positional: Sequence[KnownShape],
    named: Mapping[str, KnownShape],
    partial: bool,
) -> Triple[tuple[int, ...]]:
    """Infer shapes; see `Symbol.infer_shape`."""
    known = _by_name(graph, positional, named)
    inferred = infer_shapes(graph, {n: _shape(n, s) for n, s in known.items()})
    arguments, outputs, auxiliaries = _places(graph)
    if not partial:
        places = (*arguments, *outputs, *auxiliaries)
        if not all(is_known(inferred[place]) for place in places):
            _warn([place for place in arguments if not is_known(inferred[place])])
            return None, None, None
    return (
        [inferred[place] or () for place in arguments],
        [inferred[place] or () for place in outputs],
        [inferred[place] or () for place in auxiliaries],
    )


def dtypes(
    graph: Graph, positional: Sequence[DTypeLike], named: Mapping[str, DTypeLike]
) -> Triple[type[Any]]:
    """Infer dtypes; see `Symbol.infer_type`."""
    inferred = infer_dtypes(graph, _by_name(graph, positional, named))
    arguments, outputs, auxiliaries = _places(graph)
    return (
        [inferred[place].type for place in arguments],
        [inferred[place].type for place in outputs],
        [inferred[place].type for place in auxiliaries],
    )


def _places(graph: Graph) -> tuple[list[Entry], Sequence[Entry], list[Entry]]:
    return (
        [Entry(node) for node in graph.arguments],
        graph.outputs,
        [Entry(node) for node in graph.auxiliaries],
    )


def _by_name(
    graph: Graph, positional: Sequence[T | None], named: Mapping[str, T | None]
) -> dict[str, T]:
    if positional and named:
        raise ArgumentError(
            "Can only specify known argument shapes or types either by position or by "
            "keyword, not both"
        )
    arguments: Sequence[Node] = graph.arguments
    if len(positional) > len(arguments):
        raise ShapeError(
            f"{len(positional)} values were given for {len(arguments)} arguments: "
            f"{', '.join(node.name for node in arguments)}"
        )
    pairs = zip((node.name for node in arguments), positional, strict=False)
    return {n: value for n, value in (*pairs, *named.items()) if value is not None}


def _shape(name: str, shape: Sequence[int]) -> tuple[int, ...]:
    if isinstance(shape, (tuple, list)) and all(
        isinstance(size, (int, np.integer)) for size in shape
    ):
        return tuple(int(size) for size in shape)
    raise ArgumentTypeError(
        f"the shape of `{name}` must be a tuple of integers, such as (32, 10), "
        f"not {shape!r}"
    )


def _warn(missing: Sequence[Entry]) -> None:
    names = "\n\t".join(place.name for place in missing)
    warnings.warn(
        "Cannot decide shape for the following arguments. Consider providing them as "
        f"input:\n\t{names}",
        stacklevel=4,
    )
