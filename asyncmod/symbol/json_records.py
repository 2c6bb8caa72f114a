"""Symbol JSON, checked: from text to plain records, before any operator is looked up.

Files may come from anywhere: every field is checked for type and range, and errors
name node and field. Old generations of the format read into the same records.

Next: `asyncmod.symbol.json_upgrade`, then `asyncmod.symbol.json_reader`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, NoReturn

from runtime.errors import GraphError

MAXIMUM_LENGTH = 64 * 1024 * 1024
# Files without a version were written by 0.8.0 or before.
_OLDEST_VERSION = 800


@dataclass
class Record:
    """One node of a file.

    Attributes:
        index: Its position.
        operator: Operator name; "null" for a variable.
        name: The node's name.
        text: Its attributes, of all the places where old files keep them.
        inputs: (node, output) pairs; the nodes stand earlier in the file.
    """

    index: int
    operator: str
    name: str
    text: dict[str, str]
    inputs: list[tuple[int, int]]

    @property
    def is_variable(self) -> bool:
        return self.operator == "null"

    @property
    def label(self) -> str:
        return f"node {self.index} (`{self.name}`)"


@dataclass
class SymbolFile:
    """A file's contents.

    Attributes:
        version: Of MXNet, as major * 10000 + minor * 100 + patch.
        records: The nodes in order.
        heads: The outputs as (node, output) pairs.
    """

    version: int
    records: list[Record]
    heads: list[tuple[int, int]]


def read_records(text: str) -> SymbolFile:
    """Check a file's structure.

    Raises:
        GraphError: it is too long, not JSON, or not a symbol; names node and field.
    """
    if len(text) > MAXIMUM_LENGTH:
        raise GraphError(
            f"symbol JSON of {len(text)} characters is refused: the limit is "
            f"{MAXIMUM_LENGTH}"
        )
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise GraphError(f"not a symbol: the text is no JSON ({error})") from None
    if not isinstance(data, dict):
        _refuse("the file", "an object with `nodes` and `heads`", data)
    nodes = _list("the file", "nodes", data.get("nodes"))
    records = [_record(index, node) for index, node in enumerate(nodes)]
    heads = _list("the file", "heads", data.get("heads"))
    if not heads:
        raise GraphError("field `heads` of the file is empty: a symbol needs an output")
    return SymbolFile(
        _version(data.get("attrs")),
        records,
        [_entry("the file", "heads", head, len(records)) for head in heads],
    )


def _record(index: int, node: Any) -> Record:
    label = f"node {index}"
    if not isinstance(node, dict):
        _refuse(label, "an object", node)
    name = _string(label, "name", node.get("name"))
    label = f"{label} (`{name}`)"
    if node.get("subgraphs"):
        raise GraphError(
            f"field `subgraphs` of {label}: control-flow operators are not supported"
        )
    text: dict[str, str] = {}
    # 0.8 wrote `param` for the operator's and `attr` for the user's attributes.
    for field in ("param", "attr", "attrs"):
        attributes = node.get(field, {})
        if not isinstance(attributes, dict):
            _refuse(f"field `{field}` of {label}", "an object", attributes)
        for key, value in attributes.items():
            key = _string(label, field, key)
            text[key] = _string(label, f"{field}.{key}", value)
    inputs = _list(label, "inputs", node.get("inputs", []))
    record = Record(
        index,
        _string(label, "op", node.get("op")),
        name,
        text,
        [_entry(label, "inputs", entry, index) for entry in inputs],
    )
    if record.is_variable and record.inputs:
        raise GraphError(f"field `inputs` of {label}: a variable cannot have inputs")
    return record


def _entry(label: str, field: str, entry: Any, nodes_before: int) -> tuple[int, int]:
    # Old files leave out the third number, a version, which follows from the graph.
    if not isinstance(entry, list) or len(entry) not in (2, 3):
        _refuse(f"field `{field}` of {label}", "lists of 2 or 3 integers", entry)
    if not all(type(number) is int for number in entry):
        _refuse(f"field `{field}` of {label}", "lists of 2 or 3 integers", entry)
    node, output = entry[:2]
    if not 0 <= node < nodes_before:
        raise GraphError(
            f"field `{field}` of {label} refers to node {_short(node)}: only the "
            f"{nodes_before} nodes before it may be referred to"
        )
    return node, output


def _version(attributes: Any) -> int:
    if attributes is None:
        return _OLDEST_VERSION
    if not isinstance(attributes, dict):
        _refuse("field `attrs` of the file", "an object", attributes)
    version = attributes.get("mxnet_version")
    if version is None:
        return _OLDEST_VERSION
    # MXNet writes ["int", 10901].
    number = version[-1] if isinstance(version, list) and version else version
    if type(number) is not int or number < 0:
        field = "field `attrs.mxnet_version` of the file"
        _refuse(field, '["int", <version>]', version)
    return number


def _list(label: str, field: str, value: Any) -> list[Any]:
    if not isinstance(value, list):
        _refuse(f"field `{field}` of {label}", "a list", value)
    return value


def _string(label: str, field: str, value: Any) -> str:
    if not isinstance(value, str):
        _refuse(f"field `{field}` of {label}", "a string", value)
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            _refuse(f"field `{field}` of {label}", "valid Unicode", value)
    return value


def _refuse(what: str, rule: str, value: Any) -> NoReturn:
    raise GraphError(f"{what} must be {rule}, not {_short(value)}")


def _short(value: Any) -> str:
    if isinstance(value, (dict, list)):
        return f"{type(value).__name__} of {len(value)}"
    if isinstance(value, int) and abs(value) > 10**20:
        return "a number of more than 20 digits"
    return ascii(value)[:60]
