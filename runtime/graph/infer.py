"""Inference: the shape and dtype of every entry, from those of a few variables.

Each operator's rule refines what is known of its inputs and outputs. The rules are
called over the graph, forwards and backwards in turn, until nothing changes, so that
knowledge also flows up (a label's shape from its loss head, a state's batch size from
what it is added to).

Next: `runtime.graph.storage`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from runtime.errors import GraphError, OperatorError, ShapeError
from runtime.graph.attributes import parse
from runtime.graph.ir import Entry, Graph, Node, Shape
from runtime.graph.registry import PartialShape
from runtime.graph.shapes import is_known, unify

# MXNet's dtype numbers, as `__dtype__` attributes and parameter files hold them.
DTYPE_FLAGS: dict[int, str] = {
    0: "float32",
    1: "float64",
    2: "float16",
    3: "uint8",
    4: "int32",
    5: "int8",
    6: "int64",
    7: "bool",
}
_DEFAULT_DTYPE = np.dtype(np.float32)


@dataclass(frozen=True)
class Inference:
    """Shape and dtype of every entry of a graph, hidden outputs included."""

    shapes: dict[Entry, Shape]
    dtypes: dict[Entry, np.dtype[Any]]


@dataclass(frozen=True)
class _ShapeText:
    shape: tuple[int, ...]


def infer_shapes(
    graph: Graph, known: Mapping[str, PartialShape]
) -> dict[Entry, PartialShape]:
    """Infer as many shapes as the rules allow.

    Args:
        graph: The graph.
        known: Variable name to shape, which may be partly known (None, or 0 or -1
            for a size); it goes before a variable's own `__shape__`.

    Returns:
        The shape of every entry; partly known where the rules do not suffice.

    Raises:
        ShapeError: if shapes contradict each other (names operator, node and shapes),
            or `known` names something that is not a variable of the graph.
    """
    _check_names(graph, known)
    shapes: dict[Entry, PartialShape] = dict.fromkeys(_entries(graph))
    for node in graph.nodes:
        if node.is_variable:
            shape = known.get(node.name)
            if shape is None and "__shape__" in node.text:
                shape = parse(
                    _ShapeText, {"shape": node.text["__shape__"]}, node.name
                ).shape
            # () is how MXNet writes "unknown".
            shapes[Entry(node)] = tuple(max(n, 0) for n in shape) if shape else None
    _settle(graph, shapes, _apply_shape_rule)
    return shapes


def infer_dtypes(
    graph: Graph, known: Mapping[str, DTypeLike]
) -> dict[Entry, np.dtype[Any]]:
    """Infer the dtype of every entry; float32 where nothing else is said.

    Args:
        graph: The graph.
        known: Variable name to dtype; it goes before a variable's own `__dtype__`.

    Raises:
        ShapeError: if dtypes contradict each other (names operator, node and dtypes),
            or `known` names something that is not a variable of the graph.
    """
    _check_names(graph, known)
    dtypes: dict[Entry, np.dtype[Any] | None] = dict.fromkeys(_entries(graph))
    for node in graph.nodes:
        if node.is_variable:
            dtypes[Entry(node)] = _variable_dtype(node, known.get(node.name))
    _settle(graph, dtypes, _apply_dtype_rule)
    # A default may settle others (weights follow their data), so one at a time.
    for entry, dtype in dtypes.items():
        if dtype is None and dtypes[entry] is None:
            dtypes[entry] = _DEFAULT_DTYPE
            _settle(graph, dtypes, _apply_dtype_rule)
    return {entry: dtype for entry, dtype in dtypes.items() if dtype is not None}


def infer(
    graph: Graph, shapes: Mapping[str, PartialShape], dtypes: Mapping[str, DTypeLike]
) -> Inference:
    """Infer every shape and dtype of a graph that is to be run.

    Args:
        graph: The graph.
        shapes: Variable name to shape; see `infer_shapes`.
        dtypes: Variable name to dtype; see `infer_dtypes`.

    Raises:
        ShapeError: on a contradiction, or if some shape cannot be inferred; lists
            the unresolved arguments and the shapes that were given.
    """
    inferred = infer_shapes(graph, shapes)
    complete = {e: shape for e, shape in inferred.items() if is_known(shape)}
    if len(complete) < len(inferred):
        missing = [e for e in inferred if e not in complete]
        variables = [e for e in missing if e.node.is_variable]
        given = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
        listed = ", ".join(
            f"{e.name} {_show(inferred[e])}" for e in (variables or missing)
        )
        raise ShapeError(
            f"cannot infer the shape of: {listed} (? stands for unknown); give more "
            f"than the known shapes: {given or 'none'}"
        )
    return Inference(complete, infer_dtypes(graph, dtypes))


def _entries(graph: Graph) -> Iterator[Entry]:
    for node in graph.nodes:
        for index in range(len(node.output_names)):
            yield Entry(node, index)


def _check_names(graph: Graph, known: Mapping[str, object]) -> None:
    variables = [node.name for node in graph.nodes if node.is_variable]
    for name in known:
        if name not in variables:
            raise ShapeError(
                f"`{name}` is not an argument of this graph; its arguments are: "
                f"{', '.join(variables)}"
            )


def _variable_dtype(node: Node, known: DTypeLike | None) -> np.dtype[Any] | None:
    text: Any = known
    if text is None:
        text = node.text.get("__dtype__")
        if text is None or text == "-1":
            return None
        if text.isdecimal():
            text = DTYPE_FLAGS.get(int(text), text)
    try:
        dtype: np.dtype[Any] = np.dtype(text)
        return dtype
    except TypeError:
        raise OperatorError(
            f"variable `{node.name}` has dtype {text!r}; it must be one of "
            f"{', '.join(DTYPE_FLAGS.values())}, or its MXNet number"
        ) from None


_Rule = Callable[[Node, list[Any], list[Any]], tuple[list[Any], list[Any]]]


def _settle(graph: Graph, facts: dict[Entry, Any], rule: _Rule) -> None:
    """Apply a rule to all nodes, forwards and backwards in turn, until it is quiet."""
    nodes = [node for node in graph.nodes if not node.is_variable]
    changed = True
    while changed:
        changed = False
        for node in nodes:
            outputs = [Entry(node, i) for i in range(len(node.output_names))]
            places = [*node.inputs, *outputs]
            before = [facts[entry] for entry in places]
            count = len(node.inputs)
            refined_in, refined_out = rule(node, before[:count], before[count:])
            refined = [*refined_in, *refined_out]
            for entry, old, new in zip(places, before, refined, strict=True):
                # An entry may stand at several inputs, so look again before writing.
                if not _equal(new, old):
                    merged = _merge(node, facts[entry], new)
                    changed |= not _equal(merged, facts[entry])
                    facts[entry] = merged
        nodes.reverse()


def _equal(first: Any, second: Any) -> bool:
    # NumPy takes None for float64 when it compares dtypes.
    if first is None or second is None:
        return first is second
    return bool(first == second)


def _merge(node: Node, first: Any, second: Any) -> Any:
    if isinstance(first, tuple) and isinstance(second, tuple):
        try:
            return unify(first, second)
        except ShapeError as error:
            raise _at(node, error) from None
    if first is not None and second is not None and first != second:
        raise _at(node, ShapeError(f"{first} and {second} are not one"))
    return second if first is None else first


def _apply_shape_rule(
    node: Node, inputs: list[Any], outputs: list[Any]
) -> tuple[list[Any], list[Any]]:
    assert node.operator is not None
    try:
        return node.operator.shape(node.attributes, inputs, outputs)
    except GraphError as error:
        raise _at(node, error, inputs) from error.__cause__


def _apply_dtype_rule(
    node: Node, inputs: list[Any], outputs: list[Any]
) -> tuple[list[Any], list[Any]]:
    assert node.operator is not None
    try:
        if node.operator.dtype is not None:
            return node.operator.dtype(node.attributes, inputs, outputs)
        return _one_dtype(inputs, outputs)
    except GraphError as error:
        raise _at(node, error, inputs) from error.__cause__


def _one_dtype(inputs: list[Any], outputs: list[Any]) -> tuple[list[Any], list[Any]]:
    """The default rule: all inputs and outputs share one dtype."""
    dtypes = {dtype for dtype in (*inputs, *outputs) if dtype is not None}
    if len(dtypes) > 1:
        raise ShapeError(
            "all inputs and outputs must have one dtype; convert some of them with Cast"
        )
    dtype = next(iter(dtypes), None)
    return [dtype] * len(inputs), [dtype] * len(outputs)


def _at(node: Node, error: GraphError, facts: list[Any] | None = None) -> GraphError:
    """The same error, saying at which node and on what inputs."""
    assert node.operator is not None
    message = f"operator {node.operator.name} at node `{node.name}`: {error}"
    if facts:
        names = node.operator.input_names(node.attributes)
        shown = ", ".join(
            f"{name} {_show(fact)}" for name, fact in zip(names, facts, strict=True)
        )
        message += f" (inputs: {shown})"
    return type(error)(message)


def _show(fact: Any) -> str:
    """A shape with ? for what is unknown; a dtype by its name."""
    if fact is None:
        return "?"
    if isinstance(fact, tuple):
        sizes = ", ".join(str(size or "?") for size in fact)
        return f"({sizes},)" if len(fact) == 1 else f"({sizes})"
    return str(fact)
