"""One function per registered operator: `mx.sym.FullyConnected(data, num_hidden=10)`.

The functions are made when asked for, from what the registry says, so that operators
registered later are there too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache

import runtime.ops  # noqa: F401  importing it fills the registry
from asyncmod.errors import ArgumentTypeError
from asyncmod.symbol.apply import apply, visible
from asyncmod.symbol.signature import Signature, signature_of
from asyncmod.symbol.symbol import Symbol
from runtime.errors import GraphError
from runtime.graph import registry
from runtime.graph.ir import Entry
from runtime.graph.registry import Operator


def operator_function(name: str) -> Callable[..., Symbol]:
    """The function that applies the operator of that name or alias.

    Raises:
        OperatorError: if there is none; lists names that look alike.
    """
    return _make(registry.get(name), name)


@cache
def _make(operator: Operator, alias: str) -> Callable[..., Symbol]:
    signature = signature_of(operator)
    # As in MXNet, whose `mx.sym.contrib` functions name nodes without the prefix.
    hint = alias.removeprefix("_contrib_").lower()

    def function(
        *args: object,
        name: str | None = None,
        attr: dict[str, str] | None = None,
        **kwargs: object,
    ) -> Symbol:
        positional, rest = _split(args, signature, alias)
        if operator.variadic and rest:
            raise ArgumentTypeError(
                f"{alias}() takes symbols by position, not {rest[0]!r}; give "
                "attributes by name"
            )
        if len(rest) > len(signature.attributes):
            raise ArgumentTypeError(
                f"{alias}() takes at most {len(signature.attributes)} attributes by "
                f"position, but {len(rest)} were given: {rest}"
            )
        attributes = dict(zip(signature.attributes, rest, strict=False))
        named = {}
        for key, value in kwargs.items():
            if key in attributes:
                raise ArgumentTypeError(f"{alias}() got several values for `{key}`")
            if isinstance(value, Symbol):
                named[key] = _entry(alias, key, value)
            elif key not in signature.inputs:
                attributes[key] = value
            elif value is not None:
                raise ArgumentTypeError(
                    f"{alias}(): `{key}` must be a Symbol, not {value!r}"
                )
        return Symbol(
            visible(
                apply(
                    operator,
                    hint,
                    positional,
                    named,
                    attributes,
                    name=name,
                    attr=attr,
                )
            )
        )

    function.__name__ = function.__qualname__ = alias
    function.__module__ = "asyncmod.symbol"
    function.__doc__ = signature.documentation(alias)
    vars(function)["__signature__"] = signature.for_inspect()
    return function


def _split(
    args: Sequence[object], signature: Signature, alias: str
) -> tuple[list[Entry | None], Sequence[object]]:
    """Leading symbols are inputs; what follows are attributes in their order."""
    inputs: list[Entry | None] = []
    for position, value in enumerate(args):
        if isinstance(value, Symbol):
            inputs.append(_entry(alias, str(position), value))
        elif value is None and len(inputs) < len(signature.inputs):
            inputs.append(None)
        else:
            break
    rest = args[len(inputs) :]
    for value in rest:
        if isinstance(value, Symbol):
            raise ArgumentTypeError(
                f"{alias}(): {value!r} follows {rest[0]!r}, which is not a Symbol; "
                "inputs come first, and all are symbols"
            )
    return inputs, rest


def _entry(alias: str, argument: str, symbol: Symbol) -> Entry:
    try:
        return symbol.entry
    except GraphError as error:
        raise GraphError(f"{alias}(), input {argument}: {error}") from None
