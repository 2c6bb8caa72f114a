"""Values of parameters: initial ones and given ones.

These are plain functions on host arrays; the module runs them in a thread and then
writes the result to its devices at once, so that a failure changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from asyncmod.errors import (
    ArgumentError,
    ArgumentTypeError,
    ExtraParameterError,
    MissingParameterError,
)
from asyncmod.initializer import InitDesc
from asyncmod.module.batches import NUMERIC
from asyncmod.nd.array import as_given

Array = NDArray[Any]
Attributes = Mapping[str, Mapping[str, str]]


@dataclass(frozen=True)
class Slots:
    """The parameters, or the auxiliary states, that a symbol needs values for.

    Attributes:
        shapes, dtypes: By name.
        attributes: Of the variables, by name; `__init__` names an initializer.
    """

    shapes: Mapping[str, tuple[int, ...]]
    dtypes: Mapping[str, str]
    attributes: Attributes


def first_values(
    slots: Slots,
    given: Mapping[str, Any] | None,
    initializer: Any,
    allow_missing: bool,
) -> dict[str, Array]:
    """Values for the slots, in the order of their names.

    Without `given` the initializer makes all; else what is missing is made by the
    initializer if `allow_missing`, or left out if there is no initializer.

    Raises:
        MissingParameterError: a value is missing and must not be.
        ArgumentError: a value has another shape than the symbol's, or is no number.
        ArgumentTypeError: the initializer is needed and cannot be called.
    """
    values: dict[str, Array] = {}
    for name in sorted(slots.shapes):
        shape, dtype = slots.shapes[name], slots.dtypes[name]
        if given is not None and name in given:
            values[name] = as_parameter(name, given[name], shape)
            continue
        if given is not None:
            if not allow_missing:
                raise MissingParameterError(
                    f"{name} is not presented: give its value, or allow_missing=True "
                    "to have it initialized"
                )
            if initializer is None:
                continue
        if not callable(initializer):
            raise ArgumentTypeError(
                f"`initializer` must be an mx.init.Initializer, not {initializer!r}; "
                f"`{name}` has no value"
            )
        value = np.zeros(shape, dtype)
        described = InitDesc(name, slots.attributes.get(name), initializer)
        initializer(described, as_given(value))
        values[name] = value
    return values


def as_parameter(name: str, value: Any, shape: tuple[int, ...]) -> Array:
    """A given value as an array; devices cast it to the parameter's dtype.

    Raises:
        ArgumentError: its shape differs, or it holds no numbers.
    """
    if hasattr(value, "__dlpack__") and not hasattr(value, "__array__"):
        value = np.from_dlpack(value)
    # First the shape: a row-sparse value becomes as large as that says.
    array = value if hasattr(value, "shape") else np.asarray(value)
    if array.shape != shape:
        raise ArgumentError(
            f"the value given for parameter `{name}` has shape {array.shape}; the "
            f"symbol needs {shape}"
        )
    array = np.asarray(array)
    if array.dtype.kind not in NUMERIC:
        raise ArgumentError(
            f"the value given for parameter `{name}` has dtype {array.dtype}; it must "
            "be an array of numbers"
        )
    return array


def check_extra(given: Mapping[str, Any] | None, known: Mapping[str, Any]) -> None:
    """Refuse values for what the symbol does not have.

    Raises:
        ExtraParameterError: naming the first.
    """
    for name in given or ():
        if name not in known:
            raise ExtraParameterError(
                f'Find name "{name}" that is not in the arguments: the symbol has no '
                "such parameter; pass allow_extra=True to ignore it"
            )
