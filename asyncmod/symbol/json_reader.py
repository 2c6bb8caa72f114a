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
# Names are made for each input and output, so a short file could ask for any amount.
_MOST_DIGITS = 5
_MOST_OUTPUTS = 10**6


def loads(text: str) -> Graph:
    """Read a graph.

    Raises:
        GraphError: the text is not a symbol; names node and field.
        OperatorError: unknown operators (all of the file are listed), or attributes
            that are unknown, missing or wrong.
    """
    file = read_records(text)
    operators = _operators(file)
    upgrade(file, operators)
    nodes: list[Node] = []
    outputs: list[int] = []
    total = 0
    for record in file.records:
        inputs = [
            _checked(record.label, nodes, outputs, *entry) for entry in record.inputs
        ]
        node = _node(record, operators.get(record.operator), inputs, file.version)
        nodes.append(node)
        outputs.append(len(node.output_names))
        total += outputs[-1]
        if total > _MOST_OUTPUTS + len(nodes):
            raise GraphError(
                f"{record.label}: the nodes up to here have {total} outputs, which is "
                f"refused: the limit is {_MOST_OUTPUTS} beyond one for each"
            )
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
        for name in unknown:
            close = get_close_matches(name, known, n=1)
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
        for key in ("num_args", "num_outputs"):
            _check_count(key, record.text.get(key))
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


def _check_count(key: str, text: str | None) -> None:
    if text is not None and len(text.strip().lstrip("+-0")) > _MOST_DIGITS:
        raise OperatorError(
            f"`{key}` (={text[:30]}) must have at most {_MOST_DIGITS} digits"
        )
