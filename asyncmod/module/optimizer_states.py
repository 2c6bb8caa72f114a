"""Optimizer states as a file: msgpack, by parameter name; never pickle."""

from __future__ import annotations

from dataclasses import dataclass
from os import PathLike, fspath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from asyncmod.optimizer import Optimizer, OptimizerStatesError, packed_file
from asyncmod.optimizer.updater import decode, encode

Array = NDArray[Any]
FORMAT = "asyncmod optimizer states"
VERSION = 1


@dataclass(frozen=True)
class Content:
    """What a file of optimizer states holds.

    Attributes:
        name: The optimizer's class, in lower case.
        settings: Its counts, learning rate and scheduler, as plain data; None if the
            file holds none.
        states: State name to parameter name to array.
        own: Parameter name to what the user's own optimizer keeps.
    """

    name: str
    settings: dict[str, Any] | None
    states: dict[str, dict[str, Array]]
    own: dict[str, Any]


def write(fname: str | PathLike[str], content: Content) -> None:
    """Write content to a file, which appears whole or not at all; synchronous.

    Raises:
        OptimizerStatesError: something in it is no plain data.
        OSError: the file cannot be written.
    """
    plain = {
        "format": FORMAT,
        "version": VERSION,
        "name": content.name,
        "optimizer": content.settings,
        "states": {
            state: {name: encode(array) for name, array in arrays.items()}
            for state, arrays in content.states.items()
        },
        "own": {name: encode(state) for name, state in content.own.items()},
    }
    try:
        packed_file.write(fname, plain)
    except TypeError as error:
        raise OptimizerStatesError(
            f"the states of {content.name} cannot be saved: {error}; an optimizer may "
            "keep arrays, numbers, texts, None, and tuples, lists and dicts of these"
        ) from error


def read(fname: str | PathLike[str], optimizer: Optimizer) -> Content:
    """Content of a file, for this optimizer, which is not touched; synchronous.

    Raises:
        OptimizerStatesError: the file is not of this format, or of another kind of
            optimizer.
        OSError: it cannot be read.
    """
    try:
        read = packed_file.read(fname)
        if read["format"] != FORMAT or read["version"] != VERSION:
            raise ValueError(f"format {read['format']!r} {read['version']!r}")
        states = {
            str(state): {str(name): _array(array) for name, array in arrays.items()}
            for state, arrays in read["states"].items()
        }
        own = {str(name): decode(state) for name, state in read["own"].items()}
        content = Content(str(read["name"]), dict(read["optimizer"]), states, own)
    except (
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
    ) as error:
        raise OptimizerStatesError(
            f"{fspath(fname)} holds no optimizer states of asyncmod or MXNet: {error}"
        ) from error
    kind = type(optimizer).__name__.lower()
    if content.name != kind:
        raise OptimizerStatesError(
            f"the file holds states of the optimizer {content.name!r}, and the module "
            f"uses {kind!r}: init_optimizer with {content.name!r} first"
        )
    return content


def _array(content: Any) -> Array:
    array = decode(content)
    if not isinstance(array, np.ndarray):
        raise ValueError(f"a state is {type(array).__name__}, not an array")
    return array
