"""Symbol JSON of every MXNet generation, to a graph.

Next: `runtime.graph.ir`.
"""

from __future__ import annotations

from difflib import get_close_matches
from typing import Any

from asyncmod.symbol.compose import application, missing_input, variable
from asyncmod.symbol.json_records import Record, SymbolFile, read_records
from asyncmod.symbol.json_upgrade import upgrade
from runtime.errors import GraphError, OperatorError
from runtime.graph import registry
from runtime.graph.attributes import parse
from runtime.graph.ir import Entry, Graph, Node
from runtime.graph.registry import Operator

# Before 0.9.0 files left out auxiliary states.
_AUXILIARIES_PRESENT = 900
# Operators make names for each input and output that these attributes count, so a short
# file could ask for any amount.
_COUNTS = ("num_args", "num_outputs", "sections")
_MOST_DIGITS = 5
_MOST_IN_ALL = 10**6
# A hint per unknown operator takes time.
_MOST_HINTS = 20


def loads(text: str) -> Graph:
    """Read a graph.

    Raises:
        GraphError: the text is not a symbol; names node and field.
        OperatorError: unknown operators (all of the file are listed), or attributes
            that are unknown, missing or wrong.
    """
    file = read_records(text)
    operators = _operators(file)
    _check_counts(file)
    upgrade(file, operators)
    nodes: list[Node] = []
    outputs: list[int] = []
    for record in file.records:
        inputs = [
            _checked(record.label, nodes, outputs, *entry) for entry in record.inputs
        ]
        node = _node(record, operators.get(record.operator), inputs, file.version)
        nodes.append(node)
        outputs.append(len(node.output_names))
    return Graph(
        tuple(_checked("the heads", nodes, outputs, *head) for head in file.heads)
    )


def _operators(file: SymbolFile) -> dict[str, Operator]:
    known = set(registry.names())
    used: dict[str, Record] = {}
    for record in file.records:
        if not record.is_variable:
            used.setdefault(record.operator, record)
    unknown = [name for name in used if name not in known]
    if unknown:
        listed = []
        for count, name in enumerate(unknown):
            hinted = count < _MOST_HINTS and len(name) < 100
            close = get_close_matches(name, known, n=1) if hinted else []
            hint = f"; did you mean {close[0]}?" if close else ""
            listed.append(f"`{name}` ({used[name].label}{hint})")
        raise OperatorError(f"the symbol has unknown operators: {', '.join(listed)}")
    return {name: registry.get(name) for name in used}


def _checked(
    label: str, nodes: list[Node], outputs: list[int], node: int, output: int
) -> Entry:
    if not 0 <= output < outputs[node]:
        raise GraphError(
            f"{label}: there is no output {output} of node {node} "
            f"(`{nodes[node].name}`), which has {outputs[node]}"
        )
    return Entry(nodes[node], output)


def _node(
    record: Record, operator: Operator | None, inputs: list[Entry], version: int
) -> Node:
    if operator is None:
        return variable(record.name, record.text)
    try:
        if version < _AUXILIARIES_PRESENT:
            attributes: Any = parse(operator.attributes, record.text, operator.name)
            for argument in operator.input_names(attributes)[len(inputs) :]:
                inputs.append(
                    missing_input(record.name, argument, operator, record.text)
                )
        return application(record.name, operator, inputs, record.text)
    except OperatorError as error:
        raise OperatorError(f"{record.label}: {error}") from None
    except GraphError as error:
        raise GraphError(f"field `inputs` of {record.label}: {error}") from None


def _check_counts(file: SymbolFile) -> None:
    total = 0
    for record in file.records:
        for key in _COUNTS:
            digits = record.text.get(key, "").strip().lstrip("+-0")
            if len(digits) > _MOST_DIGITS:
                raise OperatorError(
                    f"{record.label}: `{key}` (={digits[:30]}) must have at most "
                    f"{_MOST_DIGITS} digits"
                )
            total += int(digits) if digits.isdecimal() else 0
    if total > _MOST_IN_ALL:
        raise OperatorError(
            f"attributes that count inputs and outputs ({', '.join(_COUNTS)}) add up "
            f"to {total}, which is refused: the limit is {_MOST_IN_ALL}"
        )
