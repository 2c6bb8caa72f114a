"""Optimizer states as bytes: msgpack, by parameter name; never pickle."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgpack
import numpy as np
from numpy.typing import NDArray

from asyncmod.optimizer import Optimizer, OptimizerStatesError

Array = NDArray[Any]
States = Mapping[str, Mapping[str, Array]]

FORMAT = "asyncmod optimizer states"
VERSION = 1


def dumps(optimizer: Optimizer, states: States) -> bytes:
    """Counts and scheduler of an optimizer, with its state arrays.

    Args:
        optimizer: Its class, counts and learning rate are kept.
        states: State name to parameter name to array.
    """
    packed: bytes = msgpack.packb(
        {
            "format": FORMAT,
            "version": VERSION,
            "name": type(optimizer).__name__.lower(),
            "optimizer": optimizer.get_state(),
            "states": {
                state: {name: _encode(array) for name, array in arrays.items()}
                for state, arrays in states.items()
            },
        }
    )
    return packed


def loads(data: bytes, optimizer: Optimizer) -> dict[str, dict[str, Array]]:
    """Put an optimizer back to what `dumps` saw and return its state arrays.

    Raises:
        OptimizerStatesError: the bytes are not of this format, or of another kind of
            optimizer; nothing was changed.
    """
    try:
        content = msgpack.unpackb(data)
        if content["format"] != FORMAT or content["version"] != VERSION:
            raise ValueError(f"format {content['format']!r} {content['version']!r}")
        states = {
            str(state): {str(name): _decode(array) for name, array in arrays.items()}
            for state, arrays in content["states"].items()
        }
        kind, settings = content["name"], content["optimizer"]
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
    if kind != type(optimizer).__name__.lower():
        raise OptimizerStatesError(
            f"the file holds states of the optimizer {kind!r}, and the module uses "
            f"{type(optimizer).__name__.lower()!r}: init_optimizer with {kind!r} first"
        )
    optimizer.set_state(settings)
    return states


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
