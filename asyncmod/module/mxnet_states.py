"""What a `.states` file of MXNet means for an optimizer of ours."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from os import PathLike, fspath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from asyncmod.interop.mxnet_states import load_optimizer_states
from asyncmod.module.optimizer_states import Content
from asyncmod.optimizer import Optimizer, OptimizerStatesError
from runtime.graph.update import MASTER
from runtime.row_sparse import RowSparseNDArray

Array = NDArray[Any]
Shape = tuple[int, ...]

# With `multi_precision` these have the float32 copy behind the state, others before it.
_COPY_LAST = ("sgd", "nag", "lars", "lbsgd")


def read(
    fname: str | PathLike[str],
    optimizer: Optimizer,
    parameters: Sequence[str],
    shapes: Mapping[str, Shape],
    copied: Collection[str],
) -> Content:
    """The content of MXNet's file, for this optimizer; synchronous.

    Of several devices' states, which are alike, the first one's are taken. The file has
    no counts, nor does it name the optimizer.

    Args:
        fname: The file.
        optimizer: Whose states they are to be.
        parameters: All parameters, in the order of their indexes.
        shapes: Those that the optimizer updates.
        copied: Those of them with float32 copies.

    Raises:
        OptimizerStatesError: the file is no such file, or does not fit.
        OSError: it cannot be read.
    """
    rule = optimizer.rule
    if rule is None:
        raise OptimizerStatesError(
            f"{fspath(fname)} was written by MXNet, and {type(optimizer).__name__} is "
            "written in Python: set its states by `set_states` of an `Updater`, from "
            "mx.interop.mxnet.load_optimizer_states"
        )
    states = _by_name(load_optimizer_states(fname), parameters)
    result: dict[str, dict[str, Array]] = {}
    for name, shape in shapes.items():
        try:
            if name not in states:
                raise ValueError("it has no state in the file")
            kept = _kept(rule, states[name], shape, name in copied)
            wanted = (*optimizer.state_names, *((MASTER,) if name in copied else ()))
            if len(kept) != len(wanted):
                raise ValueError(
                    f"the file has {len(kept)} arrays, the optimizer keeps "
                    f"{len(wanted)} ({', '.join(wanted)})"
                )
            for state, array in zip(wanted, kept, strict=True):
                if rule == "groupadagrad":
                    array = _spread(array, shape)
                result.setdefault(state, {})[name] = _fitting(array, shape)
        except (TypeError, ValueError) as error:
            raise OptimizerStatesError(
                f"{fspath(fname)} does not fit this {type(optimizer).__name__}: "
                f"`{name}`: {error}"
            ) from error
    return Content(type(optimizer).__name__.lower(), None, result, {})


def _by_name(
    states: Mapping[int | str, Any], parameters: Sequence[str]
) -> dict[str, Any]:
    """The states by parameter name; an index counts parameters, then devices."""
    indexes = [key for key in states if isinstance(key, int)]
    devices = max(indexes, default=0) // max(len(parameters), 1) + 1
    names = {i * devices: name for i, name in enumerate(parameters)}
    return {
        key if isinstance(key, str) else names[key]: state
        for key, state in states.items()
        if isinstance(key, str) or key in names
    }


def _kept(rule: str, state: Any, shape: Shape, has_copy: bool) -> list[Any]:
    """The arrays of our rule's states, and the float32 copy if there is one."""
    copy: list[Any] = []
    if has_copy:
        one, other = state
        state, copy = (one, [other]) if rule in _COPY_LAST else (other, [one])
    arrays = list(state) if isinstance(state, tuple) else [state]
    if rule == "dcasgd":
        arrays = arrays[:1]  # the second one is the weight before the last step
        if arrays == [None]:
            raise ValueError("without momentum it is a weight, and not converted")
    if rule == "lbsgd":
        arrays.insert(0, np.zeros(shape, np.float32))  # MXNet does not save it
    return [*(array for array in arrays if array is not None), *copy]


def _spread(array: Any, shape: Shape) -> Any:
    """MXNet keeps one number for each row of the matrix."""
    return np.broadcast_to(array, shape) if array.shape == (shape[0], 1) else array


def _fitting(array: Any, shape: Shape) -> Array:
    """The array, dense, if it can be a state of a weight of this shape."""
    if not isinstance(array, np.ndarray | RowSparseNDArray) or array.dtype.kind != "f":
        raise ValueError("it is no array of numbers with fractions")
    if array.shape != shape:
        raise ValueError(f"its shape is {array.shape}, and the parameter's {shape}")
    return np.array(array)
