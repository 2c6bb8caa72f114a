"""What is checked of a caller's arrays before any device is told of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtime.errors import ShapeError
from runtime.graph.ir import Shape

Array = NDArray[Any]


def check_inputs(inputs: Mapping[str, Array], shapes: Mapping[str, Shape]) -> None:
    """Compare a batch with what is bound.

    Raises:
        KeyError: a name that is not in `shapes`.
        ShapeError: a shape that differs.
    """
    for name, array in inputs.items():
        shape = shapes.get(name)
        if shape is None:
            raise KeyError(f"`{name}` is no input; the inputs are {', '.join(shapes)}")
        if array.shape != shape:
            raise ShapeError(f"`{name}` has shape {array.shape}, but {shape} is bound")


def check_arrays(
    what: str, arrays: Mapping[str, Array], shapes: Mapping[str, Shape]
) -> dict[str, Array]:
    """The values as arrays of numbers.

    Raises:
        KeyError: a name that is not in `shapes`.
        ShapeError: a shape that differs.
        TypeError: values that are no numbers.
    """
    checked: dict[str, Array] = {}
    for name, value in arrays.items():
        if name not in shapes:
            raise KeyError(f"`{name}` is no {what}; there are {', '.join(shapes)}")
        array = np.asarray(value)
        if array.shape != shapes[name]:
            raise ShapeError(
                f"{what} `{name}` has shape {array.shape}, but {shapes[name]} is bound"
            )
        if array.dtype.kind not in "biuf" and array.dtype.name != "bfloat16":
            raise TypeError(f"{what} `{name}` holds {array.dtype}, not numbers")
        checked[name] = array
    return checked


def check_shares(count: int, devices: int) -> None:
    """Raise ValueError unless there are values for each of the devices."""
    if count != devices:
        raise ValueError(f"there are values for {count} devices, and {devices} devices")
