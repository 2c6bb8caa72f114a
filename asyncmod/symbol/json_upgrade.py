"""What MXNet changes in files of its older versions when it reads them."""

from __future__ import annotations

from collections.abc import Mapping

from asyncmod.symbol.hidden import PLAIN_NAMES, hidden
from asyncmod.symbol.json_records import Record, SymbolFile
from runtime.errors import OperatorError
from runtime.graph.attributes import parse
from runtime.graph.registry import Operator

_NO_AXIS_MINUS_ONE = 905


def upgrade(file: SymbolFile, operators: Mapping[str, Operator]) -> None:
    """Bring the attributes of all records to today's form, in place.

    Plain names of hidden attributes (`lr_mult`) become hidden ones on any node. On an
    operator `<input>_lr_mult` moves to the variable at that input. Before 0.9.5
    argmax and argmin said "-1" where they meant all axes.
    """
    for record in file.records:
        _move_to_variables(record, file.records, operators.get(record.operator))
        record.text = {hidden(key): value for key, value in record.text.items()}
        if (
            file.version < _NO_AXIS_MINUS_ONE
            and record.operator in ("argmax", "argmin")
            and record.text.get("axis") == "-1"
        ):
            del record.text["axis"]


def _move_to_variables(
    record: Record, records: list[Record], operator: Operator | None
) -> None:
    if operator is None:
        return
    suffixed = {
        key: (key.removesuffix(f"_{plain}"), hidden(plain))
        for key in record.text
        for plain in PLAIN_NAMES
        if key.endswith(f"_{plain}")
    }
    if not suffixed:
        return
    own = {hidden(k): v for k, v in record.text.items() if k not in suffixed}
    try:
        names = operator.input_names(parse(operator.attributes, own, operator.name))
    except OperatorError as error:
        raise OperatorError(f"{record.label}: {error}") from None
    for key, (argument, attribute) in suffixed.items():
        value = record.text.pop(key)
        position = names.index(argument) if argument in names else len(names)
        if position < len(record.inputs):
            target = records[record.inputs[position][0]]
            if target.is_variable:
                target.text[attribute] = value
