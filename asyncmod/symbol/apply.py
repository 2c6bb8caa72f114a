"""What every operator call does: scopes, names, strings, then `compose`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from asyncmod.errors import ArgumentTypeError
from asyncmod.symbol import attribute_scope, names
from asyncmod.symbol.compose import compose
from asyncmod.symbol.hidden import as_text
from runtime.graph.ir import Entry, Node
from runtime.graph.registry import Operator


def apply(
    operator: Operator,
    hint: str,
    positional: Sequence[Entry | None],
    named: Mapping[str, Entry],
    attributes: Mapping[str, object],
    *,
    name: str | None = None,
    attr: Mapping[str, str] | None = None,
) -> Node:
    """Apply an operator in the current scopes.

    Args:
        operator: What to apply.
        hint: What the automatic name begins with.
        positional: Inputs in order; None for one that is missing.
        named: Further inputs by name.
        attributes: The operator's attributes and hidden ones, as Python values.
        name: The node's name; None for an automatic one.
        attr: Further attributes, which go before those of the open `AttrScope`.

    Raises:
        ArgumentTypeError: the name is not a string.
        OperatorError: unknown, missing or wrong attributes.
        GraphError: inputs that the operator does not have, or has twice.
    """
    if name is not None and not isinstance(name, str):
        raise ArgumentTypeError(f"`name` must be a string, not {name!r}")
    text = as_text({**attributes, **attribute_scope.current().get(attr)})
    return compose(names.current().get(name, hint), operator, positional, named, text)


def visible(node: Node) -> tuple[Entry, ...]:
    """The outputs of a node that a user sees."""
    return tuple(Entry(node, index) for index in range(node.visible_outputs))
