"""Operator attributes: from MXNet's strings to typed values, and back.

Symbol files hold every attribute as text ("64", "True", "(3, 3)"). Each operator
declares a frozen dataclass; `parse` fills it by the annotations of its fields:
`int`, `float`, `bool`, `str`, `Literal[...]`, `tuple[T, ...]` and `T | None`.
"""

from __future__ import annotations

import types
from collections.abc import Mapping
from dataclasses import MISSING, fields
from functools import cache
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import numpy as np

from runtime.errors import OperatorError

T = TypeVar("T")


class Others(tuple[tuple[str, str], ...]):
    """Attributes that a dataclass does not declare, as text, where it takes any."""


_BOOLEANS = {"true": True, "1": True, "false": False, "0": False}


@cache
def _hints(cls: type) -> dict[str, Any]:
    return get_type_hints(cls)


def is_hidden(key: str) -> bool:
    """Whether a key is of the form `__x__`: kept with a node, not for its operator."""
    return len(key) > 4 and key.startswith("__") and key.endswith("__")


def parse(cls: type[T], text: Mapping[str, str], operator: str) -> T:
    """Fill the dataclass `cls` from MXNet's attribute strings.

    Args:
        cls: A dataclass; its fields without default are required.
        text: Attribute name to string; hidden `__x__` keys are passed over.
        operator: The operator's name, for error messages.

    Raises:
        OperatorError: if an attribute is unknown, missing, or not of its type.
    """
    dataclass: Any = cls
    hints = _hints(dataclass)
    declared = fields(dataclass)
    names = [field.name for field in declared]
    takes_others = next((name for name in names if hints[name] is Others), None)
    others: list[tuple[str, str]] = []
    values: dict[str, Any] = {}
    for key, string in text.items():
        if is_hidden(key):
            continue
        if takes_others is not None and (key not in names or key == takes_others):
            others.append((key, string))
            continue
        if key not in names:
            raise OperatorError(
                f"operator {operator} has no attribute `{key}` (={string!r}); "
                f"it has: {', '.join(names) or 'none'}"
            )
        try:
            values[key] = _value(hints[key], string.strip())
        except ValueError:
            raise OperatorError(
                f"attribute `{key}` (={string!r}) of operator {operator} must be "
                f"{_describe(hints[key])}"
            ) from None
    if takes_others is not None:
        values[takes_others] = Others(others)
    for field in declared:
        required = field.default is MISSING and field.default_factory is MISSING
        if required and field.name not in values:
            raise OperatorError(
                f"Required parameter {field.name} of {_describe(hints[field.name])} "
                f"is not presented, in operator {operator}"
            )
    return cls(**values)


def to_text(value: object) -> str:
    """A Python value as MXNet writes it: `64`, `True`, `(3, 3)`, `0.9`, `float32`."""
    if isinstance(value, str):
        return value
    if isinstance(value, (tuple, list)):
        items = ", ".join(to_text(item) for item in value)
        return f"({items},)" if len(value) == 1 else f"({items})"
    if isinstance(value, type) and issubclass(value, (np.generic, int, float, bool)):
        return np.dtype(value).name
    if isinstance(value, np.dtype):
        return str(value.name)
    # str, not repr: NumPy's scalars print their shortest digits without their type.
    return str(value)


def _value(kind: Any, text: str) -> Any:
    """Read `text` as a value of the annotation `kind`, or raise ValueError."""
    origin, parameters = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        if text == "None":
            return None
        (inner,) = (p for p in parameters if p is not type(None))
        return _value(inner, text)
    if origin is Literal:
        if text not in parameters:
            raise ValueError(text)
        return text
    if origin is tuple:
        return tuple(_value(parameters[0], item) for item in _items(text))
    if kind is bool:
        if text.lower() not in _BOOLEANS:
            raise ValueError(text)
        return _BOOLEANS[text.lower()]
    if kind in (int, float) and "_" in text:
        raise ValueError(text)  # Python reads 1_000, MXNet does not
    if kind is int:
        return int(text.removesuffix("L"))  # Python 2 wrote its long integers so
    return kind(text)


def _items(text: str) -> list[str]:
    """Split "(3, 3)", "[3, 3]", "(3,)" or a bare "3" into its items."""
    if text[:1] + text[-1:] in ("()", "[]"):
        text = text[1:-1].strip()
        if not text:
            return []
        text = text.removesuffix(",")
    elif "," in text or not text:
        raise ValueError(text)
    return [item.strip() for item in text.split(",")]


def _describe(kind: Any) -> str:
    """An annotation in words, close to MXNet's."""
    origin, parameters = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        inner = next(p for p in parameters if p is not type(None))
        return f"{_describe(inner)} or None"
    if origin is Literal:
        return "one of " + ", ".join(repr(p) for p in parameters)
    if origin is tuple:
        return f"tuple of {_describe(parameters[0])}"
    return {bool: "boolean", str: "string"}.get(kind, str(kind.__name__))
