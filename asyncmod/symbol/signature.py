"""What an operator's function takes: inputs and attributes, for help and binding."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import MISSING, Field, dataclass, fields, replace
from functools import cache
from typing import Any, Literal, get_args, get_origin, get_type_hints

from runtime.graph.attributes import Others
from runtime.graph.registry import Operator


class _Required:
    """The default of an attribute that must be given."""

    def __repr__(self) -> str:
        return "<required>"


REQUIRED = _Required()
_SCOPED = {"name": "str | None", "attr": "dict[str, str] | None"}


@dataclass(frozen=True)
class Signature:
    """Names that an operator takes.

    Attributes:
        operator: The operator.
        inputs: All inputs that it may have; none for a variadic one.
        attributes: Its attributes with their defaults.
        takes_others: Whether it takes any others besides.
    """

    operator: Operator
    inputs: tuple[str, ...]
    attributes: dict[str, Any]
    takes_others: bool = False

    def for_inspect(self) -> inspect.Signature:
        """The signature that `help` and editors show."""
        kind: Any = inspect.Parameter.POSITIONAL_OR_KEYWORD
        parameters = [
            inspect.Parameter(name, kind, default=None, annotation="Symbol | None")
            for name in self.inputs
        ]
        if self.operator.variadic or self.takes_others:
            many = inspect.Parameter.VAR_POSITIONAL
            parameters = [inspect.Parameter("args", many, annotation="Symbol")]
            kind = inspect.Parameter.KEYWORD_ONLY
        hints = get_type_hints(self.operator.attributes)
        for name, default in self.attributes.items():
            parameters.append(
                inspect.Parameter(name, kind, default=default, annotation=hints[name])
            )
        keyword = inspect.Parameter.KEYWORD_ONLY
        for name, annotation in _SCOPED.items():
            parameters.append(
                inspect.Parameter(name, keyword, default=None, annotation=annotation)
            )
        if self.takes_others:
            parameters.append(
                inspect.Parameter("kwargs", inspect.Parameter.VAR_KEYWORD)
            )
        return inspect.Signature(parameters, return_annotation="Symbol")

    def documentation(self, alias: str) -> str:
        """A docstring."""
        operator = self.operator
        known_as = [operator.name, *operator.aliases]
        others = ", ".join(f"`{name}`" for name in known_as if name != alias)
        lines = [f"Apply the operator `{operator.name}`.", ""]
        if others:
            lines += [f"Also known as {others}.", ""]
        cls = operator.attributes
        if cls.__doc__ and not cls.__doc__.startswith(f"{cls.__name__}("):
            lines += [inspect.cleandoc(cls.__doc__), ""]
        lines.append("Args:")
        if operator.variadic:
            lines.append("    *args: Symbols, any number of them.")
        if self.takes_others:
            lines.append("    *args, **kwargs: Symbols, and attributes of its own.")
        held = () if callable(operator.auxiliary) else operator.auxiliary
        for name in self.inputs:
            if name in held:
                what = "Auxiliary state, a variable"
            else:
                what = "Symbol"
            lines.append(f"    {name}: {what}; `<name>_{name}` is made if missing.")
        hints = get_type_hints(cls)
        for name, default in self.attributes.items():
            kind = inspect.formatannotation(hints[name])
            value = "required" if default is REQUIRED else f"default {default!r}"
            lines.append(f"    {name}: {kind}, {value}.")
        lines += [
            "    name: The node's name; automatic if missing.",
            "    attr: Hidden attributes, `__x__` to string.",
            "",
            "Returns:",
            "    A symbol of the operator's outputs.",
            "",
            "Raises:",
            "    OperatorError: unknown, missing or wrong attributes.",
            "    GraphError: inputs that the operator does not have.",
        ]
        return "\n".join(lines)


@cache
def signature_of(operator: Operator) -> Signature:
    """Read an operator's declaration."""
    declared: tuple[Field[Any], ...] = fields(operator.attributes)
    hints = get_type_hints(operator.attributes)
    attributes = {f.name: _default(f) for f in declared if hints[f.name] is not Others}
    takes_others = len(attributes) < len(declared)
    if operator.variadic:
        del attributes["num_args"]  # counted
    inputs = () if takes_others else _possible_inputs(operator)
    return Signature(operator, inputs, attributes, takes_others)


def _default(field: Field[Any]) -> Any:
    if field.default_factory is not MISSING:
        return field.default_factory()
    return REQUIRED if field.default is MISSING else field.default


def _possible_inputs(operator: Operator) -> tuple[str, ...]:
    """Inputs under any attributes: found by changing one attribute after the other."""
    if operator.variadic:
        return ()
    if not callable(operator.inputs):
        return operator.inputs
    names: dict[str, None] = {}
    for attributes in _samples(operator.attributes):
        names.update(dict.fromkeys(operator.inputs(attributes)))
    return tuple(names)


def _samples(cls: type) -> Iterator[Any]:
    """Default attributes, and those with one boolean or choice changed."""
    hints = get_type_hints(cls)
    declared: tuple[Field[Any], ...] = fields(cls)
    choices = {field.name: _choices(hints[field.name]) for field in declared}
    required = {f.name: choices[f.name][0] for f in declared if _default(f) is REQUIRED}
    base = cls(**required)
    yield base
    for name, values in choices.items():
        for value in values:
            yield replace(base, **{name: value})


def _choices(kind: Any) -> tuple[Any, ...]:
    if kind is bool:
        return (False, True)
    if get_origin(kind) is Literal:
        return get_args(kind)
    if get_origin(kind) is tuple:
        return ((1,),)
    return {int: (1,), float: (1.0,)}.get(kind, (None,))
