"""Updater: an optimizer together with the states of all parameters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgpack
import numpy as np

from asyncmod.optimizer.base import Array, Index, Optimizer
from runtime.errors import AsyncmodError


class OptimizerStatesError(AsyncmodError, ValueError):
    """Bytes are not optimizer states that `get_states` wrote."""


class Updater:
    """Calls the optimizer on parameters; states are made at their first update.

    Attributes:
        optimizer: The optimizer.
        states: Its state for each index.
    """

    def __init__(self, optimizer: Optimizer) -> None:
        self.optimizer = optimizer
        self.states: dict[Index, Any] = {}

    def __call__(
        self,
        index: Index | Sequence[Index],
        grad: Any,
        weight: Array | Sequence[Array],
    ) -> None:
        """Update one weight, or a list of them, in place.

        Gradients are arrays, or row-sparse.
        """
        if not isinstance(index, list | tuple):
            index, grad, weight = [index], [grad], [weight]  # type: ignore[list-item]
        for i, g, w in zip(index, grad, weight, strict=True):
            if i not in self.states:
                self.states[i] = self.optimizer.create_state_multi_precision(i, w)
            self.optimizer.update_multi_precision(i, w, g, self.states[i])

    def get_states(self, dump_optimizer: bool = False) -> bytes:
        """All states and the optimizer's counts, in msgpack.

        Args:
            dump_optimizer: `set_states` then takes over its learning rate, schedule
                and `rescale_grad`, too.
        """
        return msgpack.packb(self.plain_states(dump_optimizer))

    def plain_states(self, dump_optimizer: bool = False) -> dict[str, Any]:
        """What `get_states` packs; arrays are not copied."""
        return {
            "optimizer": self.optimizer.get_state(),
            "dump_optimizer": dump_optimizer,
            "states": [[i, encode(state)] for i, state in self.states.items()],
        }

    def set_states(self, states: bytes) -> None:
        """Continue from `get_states`.

        Raises:
            OptimizerStatesError: `states` was not written by it.
        """
        try:
            content = msgpack.unpackb(states)
        except (ValueError, msgpack.UnpackException) as error:
            raise _no_states(error) from error
        self.set_plain_states(content)

    def set_plain_states(self, content: Any) -> None:
        """Continue from `plain_states`, as `packed_file.read` gives it.

        Raises:
            OptimizerStatesError: it is something else.
        """
        try:
            decoded = {index: decode(state) for index, state in content["states"]}
            whole = content["dump_optimizer"]
            optimizer = self.optimizer
            take = optimizer.set_state if whole else optimizer.go_on_from
            take(content["optimizer"])
        except (ValueError, KeyError, TypeError) as error:
            raise _no_states(error) from error
        self.states = decoded


def _no_states(error: Exception) -> OptimizerStatesError:
    return OptimizerStatesError(
        "these bytes are no optimizer states of this format (MXNet's are read by "
        f"mx.interop.mxnet.load_optimizer_states): {error}"
    )


def get_updater(optimizer: Optimizer) -> Updater:
    """An Updater of `optimizer`."""
    return Updater(optimizer)


def encode(state: Any) -> Any:
    """Nested arrays, numbers, texts, None, tuples, lists and dicts as plain data.

    Arrays are not copied.
    """
    if isinstance(state, np.ndarray):
        return {
            "dtype": state.dtype.str,
            "shape": list(state.shape),
            "data": np.ascontiguousarray(state).reshape(-1).view(np.uint8).data,
        }
    if isinstance(state, tuple):
        return [encode(part) for part in state]
    if isinstance(state, list):
        return {"list": [encode(part) for part in state]}
    if isinstance(state, dict):
        return {"dict": [[key, encode(value)] for key, value in state.items()]}
    if isinstance(state, np.generic):
        return {"scalar": encode(np.asarray(state))}
    return state


def decode(state: Any) -> Any:
    """What `encode` was given.

    Raises:
        ValueError, KeyError, TypeError: it is nothing that `encode` gives.
    """
    if isinstance(state, list):
        return tuple(decode(part) for part in state)
    if isinstance(state, memoryview):
        return bytes(state)
    if not isinstance(state, dict):
        return state
    if "list" in state:
        return [decode(part) for part in state["list"]]
    if "dict" in state:
        return {key: decode(value) for key, value in state["dict"]}
    if "scalar" in state:
        return decode(state["scalar"])[()]
    dtype = np.dtype(str(state["dtype"]))
    if dtype.kind not in "fiub":
        raise ValueError(f"dtype {dtype}")
    return np.frombuffer(state["data"], dtype).reshape(state["shape"]).copy()
