"""Functions that make arrays, as `mx.nd` has them.

`ctx` is for MXNet's sake everywhere: arrays are in the host's memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import DTypeLike

from asyncmod.nd.array import NDArray

if TYPE_CHECKING:
    from asyncmod.context import Context

Size = int | tuple[int, ...]


def array(
    source_array: Any, ctx: Context | None = None, dtype: DTypeLike | None = None
) -> NDArray:
    """A copy of anything array-like.

    Without `dtype` arrays of `mx.nd` keep theirs, and all others become float32, as in
    MXNet.
    """
    if hasattr(source_array, "__dlpack__") and not hasattr(source_array, "__array__"):
        source_array = np.from_dlpack(source_array)
    if dtype is None and not isinstance(source_array, NDArray):
        dtype = np.float32
    return np.array(source_array, dtype).view(NDArray)


def from_numpy(ndarray: np.ndarray[Any, Any], zero_copy: bool = True) -> NDArray:
    """The same memory as an `mx.nd` array, or a copy; the dtype stays."""
    return ndarray.view(NDArray) if zero_copy else np.array(ndarray).view(NDArray)


def empty(
    shape: Size, ctx: Context | None = None, dtype: DTypeLike = np.float32
) -> NDArray:
    """An array of `shape` whose values are not set."""
    return np.empty(shape, dtype).view(NDArray)


def zeros(
    shape: Size, ctx: Context | None = None, dtype: DTypeLike = np.float32
) -> NDArray:
    """An array of zeros."""
    return np.zeros(shape, dtype).view(NDArray)


def ones(
    shape: Size, ctx: Context | None = None, dtype: DTypeLike = np.float32
) -> NDArray:
    """An array of ones."""
    return np.ones(shape, dtype).view(NDArray)


def full(
    shape: Size,
    val: float,
    ctx: Context | None = None,
    dtype: DTypeLike = np.float32,
) -> NDArray:
    """An array filled with `val`."""
    return np.full(shape, val, dtype).view(NDArray)


def eye(
    N: int,
    M: int = 0,
    k: int = 0,
    ctx: Context | None = None,
    dtype: DTypeLike = np.float32,
) -> NDArray:
    """Ones on diagonal `k` of an N x M matrix (N x N if M is 0), zeros elsewhere."""
    return np.eye(N, M or N, k, dtype).view(NDArray)


def linspace(
    start: float,
    stop: float,
    num: int,
    endpoint: bool = True,
    ctx: Context | None = None,
    dtype: DTypeLike = np.float32,
) -> NDArray:
    """`num` numbers from `start` to `stop`, equally far from each other."""
    return np.linspace(start, stop, num, endpoint).astype(dtype).view(NDArray)


def zeros_like(data: Any) -> NDArray:
    """Zeros of the shape and dtype of `data`."""
    return np.zeros_like(np.asarray(data)).view(NDArray)


def ones_like(data: Any) -> NDArray:
    """Ones of the shape and dtype of `data`."""
    return np.ones_like(np.asarray(data)).view(NDArray)


def arange(
    start: float,
    stop: float | None = None,
    step: float = 1.0,
    repeat: int = 1,
    ctx: Context | None = None,
    dtype: DTypeLike = np.float32,
) -> NDArray:
    """Numbers from `start` up to `stop`, each `repeat` times."""
    first, last = (0.0, start) if stop is None else (start, stop)
    return np.repeat(np.arange(first, last, step), repeat).astype(dtype).view(NDArray)


def concat(*data: Any, dim: int = 1) -> NDArray:
    """Join arrays along axis `dim`."""
    return np.concatenate([np.asarray(part) for part in data], axis=dim).view(NDArray)


def concatenate(arrays: Sequence[Any], axis: int = 0) -> NDArray:
    """Join a list of arrays along `axis`."""
    return concat(*arrays, dim=axis)


def stack(*data: Any, axis: int = 0) -> NDArray:
    """Join arrays along a new axis."""
    return np.stack([np.asarray(part) for part in data], axis=axis).view(NDArray)


def split_v2(
    ary: Any,
    indices_or_sections: int | Sequence[int],
    axis: int = 0,
    squeeze_axis: bool = False,
) -> list[NDArray]:
    """Copies of the parts of an array.

    Args:
        ary: The array.
        indices_or_sections: How many equal parts, or where the second and each further
            one begins.
        axis: The axis to cut.
        squeeze_axis: Leave this axis out; for parts of size 1.

    Raises:
        ValueError: no equal parts, or an axis to leave out that is longer than 1.
    """
    parts = np.split(np.asarray(ary), indices_or_sections, axis)
    if squeeze_axis:
        parts = [part.squeeze(axis) for part in parts]
    return [part.copy().view(NDArray) for part in parts]


def moveaxis(tensor: Any, source: int, destination: int) -> NDArray:
    """Move one axis to another place."""
    return np.moveaxis(np.asarray(tensor), source, destination).view(NDArray)


def waitall() -> None:
    """Return at once: nothing is computed behind the caller's back."""
