"""Composition: new nodes from operators and inputs, and graphs with parts replaced."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from runtime.errors import GraphError
from runtime.graph.attributes import parse
from runtime.graph.ir import Entry, Node, walk
from runtime.graph.registry import Operator

Replacement = Callable[[Node, tuple[Entry, ...]], Sequence[Entry] | None]


def variable(name: str, text: Mapping[str, str]) -> Node:
    """A variable with these attributes."""
    return Node(name, text=MappingProxyType(dict(text)))


def missing_input(
    node: str, argument: str, operator: Operator, text: Mapping[str, str]
) -> Entry:
    """The variable `<node>_<argument>` for an input that was not given.

    It inherits all attributes of its node, as MXNet does: hidden ones such as
    `__lr_mult__` are meant for it, the operator's own do no harm.
    """
    defaults = (operator.parameter_defaults or {}).get(argument, {})
    return Entry(variable(f"{node}_{argument}", {**defaults, **text}))


def application(
    name: str, operator: Operator, inputs: Sequence[Entry], text: Mapping[str, str]
) -> Node:
    """One application of an operator to all its inputs.

    Raises:
        OperatorError: unknown, missing or wrong attributes.
        GraphError: a wrong number of inputs, or an auxiliary state that is computed.
    """
    attributes: Any = parse(operator.attributes, text, operator.name)
    names = operator.input_names(attributes)
    if len(inputs) != len(names):
        raise GraphError(
            f"operator {operator.name} at node `{name}` needs {len(names)} inputs "
            f"({', '.join(names) or 'none'}), but has {len(inputs)}"
        )
    node = Node(name, operator, tuple(inputs), MappingProxyType(dict(text)), attributes)
    _check_auxiliaries(node)
    return node


def compose(
    name: str,
    operator: Operator,
    positional: Sequence[Entry | None],
    named: Mapping[str, Entry],
    text: Mapping[str, str],
) -> Node:
    """Apply an operator to some inputs; variables are made for the missing ones.

    Args:
        name: The node's name.
        operator: What to apply.
        positional: Inputs in order; None for one that is missing.
        named: Further inputs by name.
        text: Attributes; `num_args` of a variadic operator may be left out.

    Raises:
        OperatorError: unknown, missing or wrong attributes.
        GraphError: inputs that the operator does not have, or has twice.
    """
    if operator.variadic and "num_args" not in text:
        text = {**text, "num_args": str(len(positional) + len(named))}
    names = operator.input_names(parse(operator.attributes, text, operator.name))
    if len(positional) > len(names):
        raise GraphError(
            f"operator {operator.name} at node `{name}` takes {len(names)} inputs "
            f"({', '.join(names) or 'none'}), but {len(positional)} were given"
        )
    given = {n: e for n, e in zip(names, positional, strict=False) if e is not None}
    for argument in named:
        if argument not in names:
            raise GraphError(
                f"operator {operator.name} at node `{name}` has no input "
                f"`{argument}`; its inputs are: {', '.join(names) or 'none'}"
            )
        if argument in given:
            raise GraphError(
                f"input `{argument}` of operator {operator.name} at node `{name}` is "
                "given twice, by position and by name"
            )
    given.update(named)
    inputs = [
        given.get(argument) or missing_input(name, argument, operator, text)
        for argument in names
    ]
    return application(name, operator, inputs, text)


def rebuild(outputs: Sequence[Entry], replacement: Replacement) -> tuple[Entry, ...]:
    """The graph again, with some nodes replaced.

    Args:
        outputs: The graph's outputs.
        replacement: (node, its new inputs) -> what stands for its outputs, or None to
            keep it. Nodes above which nothing changed are not copied.

    Raises:
        GraphError: if an auxiliary state would be replaced by something computed.
    """
    moved: dict[Node, Sequence[Entry]] = {}
    for node in walk(outputs):
        inputs = tuple(moved[entry.node][entry.index] for entry in node.inputs)
        entries = replacement(node, inputs)
        if entries is None:
            if inputs != node.inputs:
                node_after = replace(node, inputs=inputs)
                _check_auxiliaries(node_after)
            else:
                node_after = node
            count = len(node.output_names)
            entries = [Entry(node_after, index) for index in range(count)]
        moved[node] = entries
    return tuple(moved[entry.node][entry.index] for entry in outputs)


def _check_auxiliaries(node: Node) -> None:
    if node.operator is None:
        return
    for argument, entry in zip(
        node.operator.auxiliary_names(node.attributes),
        node.auxiliary_inputs,
        strict=True,
    ):
        if not entry.node.is_variable:
            raise GraphError(
                f"input `{argument}` of operator {node.operator.name} at node "
                f"`{node.name}` is an auxiliary state and must be a variable, not the "
                f"output `{entry.name}` of an operator"
            )
