"""Operators on arrays: `mx.nd.softmax(x)` computes at once, by the NumPy definition.

The functions are those of `mx.sym`, called with arrays. They are synchronous and made
for what scripts do beside training; nets belong into `mx.Module` or `mx.bind`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import numpy as np

import asyncmod.symbol as sym
from asyncmod.absent import ABSENT
from asyncmod.errors import ArgumentError, ArgumentTypeError
from asyncmod.nd.array import NDArray
from asyncmod.symbol.namespaces import Namespace
from runtime.graph.evaluate import evaluate
from runtime.ops.random import PhiloxSource


@cache
def operator_function(name: str) -> Callable[..., Any]:
    """The function that applies the operator of that name or alias to arrays.

    It takes what the symbol's function takes, NumPy arrays in place of symbols, and
    `out`: an array, or a list of arrays, to put the result into.

    Raises:
        AttributeError: there is no such operator; names that look alike are listed.
    """
    try:
        make: Callable[..., sym.Symbol] = getattr(sym, name)
    except AttributeError as error:
        raise AttributeError(f"mx.nd has no `{name}`: {error}") from None

    def function(*args: Any, out: Any = None, **named: Any) -> Any:
        values: dict[str, np.ndarray[Any, Any]] = {}
        if args and isinstance(args[0], list):
            raise ArgumentTypeError(
                f"mx.nd.{name}() takes arrays, not {args[0]!r}: make one with "
                "mx.nd.array"
            )

        def variable(value: Any) -> Any:
            if not isinstance(value, np.ndarray):
                return value
            key = f"array{len(values)}"
            values[key] = np.atleast_1d(np.asarray(value))  # MXNet has no 0-d arrays
            return sym.Variable(key)

        # Automatic names of the program's own symbols must not depend on this.
        with sym.NameManager():
            symbol = make(
                *(variable(value) for value in args),
                **{key: variable(value) for key, value in named.items()},
            )
        return _given(_outputs(name, symbol, values), out)

    function.__name__ = function.__qualname__ = name
    function.__module__ = "asyncmod.nd"
    function.__doc__ = make.__doc__
    return function


def _outputs(
    name: str, symbol: sym.Symbol, values: Mapping[str, np.ndarray[Any, Any]]
) -> list[NDArray]:
    missing = [made for made in symbol.list_inputs() if made not in values]
    if missing:
        raise ArgumentError(
            f"mx.nd.{name}() needs an array for every input, and there is none for: "
            f"{', '.join(missing)}"
        )
    outputs = evaluate(symbol.graph, values, _random)
    return [output.view(NDArray) for output in outputs]


def _random(position: int) -> PhiloxSource:
    """Numbers that follow from `mx.random.seed`, for one operator."""
    from asyncmod.random import draw_seed

    return PhiloxSource(draw_seed(), position, step=0)


def _given(outputs: list[NDArray], out: Any) -> Any:
    """The outputs, or `out` with their values."""
    if out is None:
        return outputs[0] if len(outputs) == 1 else outputs
    places = list(out) if isinstance(out, list | tuple) else [out]
    if len(places) != len(outputs):
        raise ArgumentError(
            f"`out` has {len(places)} arrays for {len(outputs)} outputs"
        )
    for place, output in zip(places, outputs, strict=True):
        np.copyto(place, output, casting="unsafe")
    return out


def histogram(
    a: np.ndarray[Any, Any],
    bins: int | np.ndarray[Any, Any] = 10,
    range: tuple[float, float] | None = None,
) -> list[NDArray]:
    """`mx.sym.histogram` of an array; `range` is that of its elements if not given."""
    if range is None and not isinstance(bins, np.ndarray):
        range = float(np.min(a)), float(np.max(a))
    counts: list[NDArray] = operator_function("histogram")(a, bins=bins, range=range)
    return counts


linalg = Namespace("mx.nd.linalg", "_linalg_", make=operator_function)
contrib = Namespace("mx.nd.contrib", "_contrib_", ABSENT["contrib"], operator_function)
