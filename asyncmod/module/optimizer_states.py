"""Optimizer states as bytes: msgpack, by parameter name; never pickle."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgpack
import numpy as np
from numpy.typing import NDArray

from asyncmod.optimizer import Optimizer, OptimizerStatesError

Array = NDArray[Any]
FORMAT = "asyncmod optimizer states"
VERSION = 1


@dataclass(frozen=True)
class Content:
    """What a file of optimizer states holds.

    Attributes:
        name: The optimizer's class, in lower case.
        settings: Its counts, learning rate and scheduler, as plain data.
        states: State name to parameter name to array.
    """

    name: str
    settings: dict[str, Any]
    states: dict[str, dict[str, Array]]


def collect(optimizer: Optimizer, states: dict[str, dict[str, Array]]) -> Content:
    """What there is to save now."""
    return Content(type(optimizer).__name__.lower(), optimizer.get_state(), states)


def dumps(content: Content) -> bytes:
    """Content as bytes."""
    packed: bytes = msgpack.packb(
        {
            "format": FORMAT,
            "version": VERSION,
            "name": content.name,
            "optimizer": content.settings,
            "states": {
                state: {name: _encode(array) for name, array in arrays.items()}
                for state, arrays in content.states.items()
            },
        }
    )
    return packed


def loads(data: bytes, optimizer: Optimizer) -> Content:
    """Content from bytes, for this optimizer; it is not touched.

    Raises:
        OptimizerStatesError: the bytes are not of this format, or of another kind of
            optimizer.
    """
    try:
        read = msgpack.unpackb(data)
        if read["format"] != FORMAT or read["version"] != VERSION:
            raise ValueError(f"format {read['format']!r} {read['version']!r}")
        states = {
            str(state): {str(name): _decode(array) for name, array in arrays.items()}
            for state, arrays in read["states"].items()
        }
        content = Content(str(read["name"]), dict(read["optimizer"]), states)
    except (
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        msgpack.UnpackException,
    ) as error:
        raise OptimizerStatesError(
            "this file holds no optimizer states of asyncmod (MXNet's `.states` are "
            f"pickles and are not read): {error}"
        ) from error
    kind = type(optimizer).__name__.lower()
    if content.name != kind:
        raise OptimizerStatesError(
            f"the file holds states of the optimizer {content.name!r}, and the module "
            f"uses {kind!r}: init_optimizer with {content.name!r} first"
        )
    return content


def _encode(array: Array) -> dict[str, Any]:
    return {
        "dtype": array.dtype.str,
        "shape": list(array.shape),
        "data": np.ascontiguousarray(array).tobytes(),
    }


def _decode(content: Any) -> Array:
    dtype = np.dtype(str(content["dtype"]))
    if dtype.kind not in "fiub":
        raise ValueError(f"dtype {dtype}")
    return np.frombuffer(content["data"], dtype).reshape(content["shape"]).copy()
