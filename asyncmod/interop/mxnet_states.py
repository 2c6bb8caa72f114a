"""MXNet's optimizer states (`.states`), which are pickles: read without running them.

They hold a dict from the index or the name of a parameter to its state: None, an array,
or a tuple of these; an array is pickled as a record of `asyncmod.interop.mxnet_params`.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from asyncmod.interop import pickled_data
from asyncmod.interop.mxnet_params import StrPath, read_record
from asyncmod.interop.pickled_data import Call, PickledDataError
from asyncmod.optimizer import OptimizerStatesError

_ARRAYS = {
    *("mxnet.ndarray.NDArray", "mxnet.ndarray.ndarray.NDArray"),
    *("mxnet.ndarray.sparse.RowSparseNDArray", "mxnet.ndarray.sparse.CSRNDArray"),
}
_BYTES = {"builtins.bytearray", "__builtin__.bytearray", "_codecs.encode"}


def is_pickle(path: StrPath) -> bool:
    """Whether a file of states begins as MXNet's do, and no msgpack of ours does.

    Raises:
        OSError: it cannot be read.
    """
    with open(path, "rb") as file:
        begin = file.read(2)
    has_protocol = begin[:1] == b"\x80" and begin[1:2] <= b"\x05"
    return has_protocol or begin[:1] in (b"(", b"}")  # 0 and 1 do not say so


def load_optimizer_states(path: StrPath) -> dict[int | str, Any]:
    """The states in a file that MXNet's `save_optimizer_states` wrote.

    Nothing in the file is run: of what it asks to be called only arrays are known, and
    made here. `Module.load_optimizer_states` reads such files by itself.

    Args:
        path: The file; an optimizer in it (`dump_optimizer=True`) is left aside.

    Returns:
        By the parameter's index (on n devices its position times n, plus the device's)
        or name: None, an array, or a tuple of these.

    Raises:
        OptimizerStatesError: it is damaged, no such file, or holds anything else.
        OSError: it cannot be read.
    """
    content = Path(path).read_bytes()
    try:
        states = pickled_data.read(content)
        if isinstance(states, tuple) and len(states) == 2:
            states, _ = states
        if not isinstance(states, dict):
            raise PickledDataError(f"it holds {_named(states)}, no dict of states")
        reader = _States(os.fspath(path), len(content))
        return {key: reader.state(value) for key, value in states.items()}
    except ValueError as error:
        raise OptimizerStatesError(
            f"{os.fspath(path)} holds no optimizer states of MXNet: {error}"
        ) from error


class _States:
    """Makes arrays, of no more bytes than the file has."""

    def __init__(self, path: str, nbytes: int) -> None:
        self._path = path
        self._left = nbytes
        self._made: dict[int, Any] = {}

    def state(self, value: Any, depth: int = 0) -> Any:
        """One parameter's state."""
        if value is None:
            return None
        if isinstance(value, Call) and value.function in _ARRAYS:
            if id(value) not in self._made:
                self._made[id(value)] = self._array(value)
            return self._made[id(value)]
        if isinstance(value, tuple | list) and depth < 2:
            return tuple(self.state(part, depth + 1) for part in value)
        raise PickledDataError(f"a state is {_named(value)}, not an array")

    def _array(self, call: Call) -> Any:
        handle = call.state.get("handle") if isinstance(call.state, dict) else None
        record = _record(handle)
        if record is None:
            raise PickledDataError("an array has no values")
        self._left -= len(record)
        if self._left < 0:
            raise PickledDataError("its arrays have more bytes than the file")
        return read_record(record, self._path)


def _record(value: Any) -> bytes | None:
    """The bytes of an array: at most two calls deep, as the protocol wants it."""
    for _ in range(2):
        if isinstance(value, Call) and value.function in _BYTES:
            match value.arguments:
                case (str(text), "latin-1" | "latin1"):
                    return text.encode("latin-1")
                case (inner,):
                    value = inner
    return bytes(value) if isinstance(value, bytes | bytearray) else None


def _named(value: Any) -> str:
    """What a value is, for an error."""
    if isinstance(value, Call):
        return f"the result of a call of `{value.function}`, which is not done"
    return f"a {type(value).__name__}"
