"""Hidden attributes: `__x__` keys, which travel with a node but not to its operator.

A few of them have plain names as well (`lr_mult` for `__lr_mult__`): users write the
plain one, nodes hold the hidden one, and listings show both.
"""

from __future__ import annotations

from collections.abc import Mapping

from runtime.errors import OperatorError
from runtime.graph.attributes import to_text
from runtime.graph.ir import Graph, Node

PLAIN_NAMES = ("ctx_group", "lr_mult", "wd_mult", "force_mirroring", "mirror_stage")


def hidden(key: str) -> str:
    """The form in which nodes hold a key."""
    return f"__{key}__" if key in PLAIN_NAMES else key


def as_text(attributes: Mapping[str, object]) -> dict[str, str]:
    """Attributes as a node holds them: hidden keys, MXNet's strings.

    Raises:
        OperatorError: for a key such as `weight_lr_mult`, which belongs to a variable.
    """
    text = {}
    for key, value in attributes.items():
        for plain in PLAIN_NAMES:
            argument = key.removesuffix(f"_{plain}")
            if argument != key and not key.startswith("__"):
                raise OperatorError(
                    f"`{key}` (={value!r}) is not supported on an operator: make the "
                    f"variable yourself, w = Variable(..., {plain}={value!r}), and "
                    f"pass it as {argument}=w"
                )
        text[hidden(key)] = to_text(value)
    return text


def listed(text: Mapping[str, str]) -> dict[str, str]:
    """Attributes as listings show them: MXNet's hidden ones under both names."""
    plain = {key: text[hidden(key)] for key in PLAIN_NAMES if hidden(key) in text}
    return {**text, **plain}


def node_texts(graph: Graph) -> dict[Node, dict[str, str]]:
    """The attributes of every node, with what operators say of their variables.

    An operator may declare hidden attributes for an input (BatchNorm: moving_var
    begins at one). They hold for any variable that stands there and has none of its
    own.
    """
    texts = {node: dict(node.text) for node in graph.nodes}
    for node in graph.nodes:
        if node.operator is None or not node.operator.parameter_defaults:
            continue
        names = node.operator.input_names(node.attributes)
        for name, entry in zip(names, node.inputs, strict=True):
            if entry.node.is_variable:
                defaults = node.operator.parameter_defaults.get(name, {})
                texts[entry.node] = {**defaults, **texts[entry.node]}
    return texts
