"""Variables and groups: where a graph begins and ends."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import DTypeLike

from asyncmod.errors import ArgumentError, ArgumentTypeError
from asyncmod.symbol import attribute_scope
from asyncmod.symbol.compose import variable
from asyncmod.symbol.hidden import as_text
from asyncmod.symbol.symbol import Symbol
from runtime.graph.attributes import is_hidden, to_text
from runtime.graph.infer import DTYPE_FLAGS
from runtime.graph.ir import Entry

_STORAGE_TYPES = {"undefined": -1, "default": 0, "row_sparse": 1, "csr": 2}


class HasDumps(Protocol):
    """An initializer, as far as a variable needs it."""

    def dumps(self) -> str:
        """Name and arguments as JSON."""
        ...


def var(
    name: str,
    attr: Mapping[str, str] | None = None,
    shape: Sequence[int] | None = None,
    lr_mult: float | None = None,
    wd_mult: float | None = None,
    dtype: DTypeLike | None = None,
    init: HasDumps | str | None = None,
    stype: str | None = None,
    **hidden: object,
) -> Symbol:
    """Make a variable: an input, a label or a parameter.

    Args:
        name: Its name; unique in a graph that is to be bound.
        attr: Further attributes, as strings.
        shape: Its shape if it cannot be inferred; 0 stands for an unknown size.
        lr_mult: Factor on the learning rate.
        wd_mult: Factor on the weight decay.
        dtype: NumPy dtype; else it is inferred, float32 if nothing else says.
        init: Initializer of its own, an object or its `dumps()`.
        stype: Storage type: `default`, `row_sparse` or `csr`.
        **hidden: Attributes of your own, of the form `__x__`.

    Raises:
        ArgumentTypeError: the name is not a string.
        ArgumentError: a keyword is not of the form `__x__`; a dtype or storage type
            that MXNet's files do not have.
    """
    if not isinstance(name, str):
        raise ArgumentTypeError(f"Expect a string for variable `name`, not {name!r}")
    text = as_text(attribute_scope.current().get(attr))
    special = {
        "__shape__": None if shape is None else tuple(shape),
        "__lr_mult__": lr_mult,
        "__wd_mult__": wd_mult,
        "__dtype__": None if dtype is None else _dtype_flag(name, dtype),
        "__init__": init if init is None or isinstance(init, str) else init.dumps(),
        "__storage_type__": None if stype is None else _storage_flag(name, stype),
    }
    text.update((k, to_text(v)) for k, v in special.items() if v is not None)
    for key, value in hidden.items():
        if not is_hidden(key):
            raise ArgumentError(
                f"Attribute name={key} of variable `{name}` is not supported. "
                "Additional attributes must start and end with double underscores, "
                "e.g, __yourattr__"
            )
        text[key] = to_text(value)
    return Symbol([Entry(variable(name, text))])


Variable = var


def Group(symbols: Sequence[Symbol]) -> Symbol:
    """All outputs of several symbols as one symbol.

    Raises:
        ArgumentError: there are none.
        ArgumentTypeError: one is not a symbol.
    """
    symbols = list(symbols)
    if not symbols:
        raise ArgumentError("Expected at least one symbol in Group")
    for symbol in symbols:
        if not isinstance(symbol, Symbol):
            raise ArgumentTypeError(
                f"Expected a list of symbols in Group, not {symbol!r}"
            )
    return Symbol([entry for symbol in symbols for entry in symbol.entries])


def _dtype_flag(name: str, dtype: DTypeLike) -> int:
    flags = {text: flag for flag, text in DTYPE_FLAGS.items()}
    text = np.dtype(dtype).name
    if text not in flags:
        raise ArgumentError(
            f"variable `{name}` cannot have dtype {text}; choose one of "
            f"{', '.join(flags)}"
        )
    return flags[text]


def _storage_flag(name: str, stype: str) -> int:
    if stype not in _STORAGE_TYPES:
        raise ArgumentError(
            f"variable `{name}` cannot have storage type {stype!r}; choose one of "
            f"{', '.join(_STORAGE_TYPES)}"
        )
    return _STORAGE_TYPES[stype]
