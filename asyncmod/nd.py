"""`mx.nd`: the array that old scripts know, and functions that make it.

NDArray is a NumPy array with MXNet's extra members; nothing here is lazy, so that
`wait_to_read` and `waitall` return at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import DTypeLike

if TYPE_CHECKING:
    from asyncmod.context import Context

Size = int | tuple[int, ...]


class NDArray(np.ndarray[Any, np.dtype[Any]]):
    """A NumPy array with what MXNet's NDArray adds; any dtype and shape."""

    def asnumpy(self) -> np.ndarray[Any, np.dtype[Any]]:
        """A copy as a plain NumPy array."""
        return np.array(self, copy=True, subok=False)

    def asscalar(self) -> Any:
        """The single element as a Python number.

        Raises:
            ValueError: there is not exactly one element.
        """
        if self.size != 1:
            raise ValueError(
                f"asscalar() needs an array with one element; the shape is {self.shape}"
            )
        return self.item()

    @property
    def context(self) -> Context:
        """Always `cpu(0)`: arrays at the face are in the host's memory."""
        from asyncmod.context import cpu

        return cpu(0)

    ctx = context

    def as_in_context(self, context: Context) -> NDArray:
        """This array; devices take their copies when they are given it."""
        return self

    def copyto(self, other: Any) -> NDArray:
        """Copy into the array `other`, cast to its dtype; a context gives a new one.

        Raises:
            ValueError: the shapes differ.
        """
        if not isinstance(other, np.ndarray):
            return self.copy()
        if other.shape != self.shape:
            raise ValueError(
                f"copyto() needs equal shapes; this is {self.shape}, the other "
                f"{other.shape}"
            )
        np.copyto(other, self, casting="unsafe")
        return other.view(NDArray)

    def wait_to_read(self) -> None:
        """Return at once: the values are there."""

    @property
    def stype(self) -> str:
        """Storage type; always "default" (dense)."""
        return "default"


def array(
    source_array: Any, dtype: DTypeLike | None = None, ctx: Context | None = None
) -> NDArray:
    """A copy of anything array-like.

    Without `dtype` NumPy and `mx.nd` arrays keep theirs, and lists become float32.
    """
    if hasattr(source_array, "__dlpack__") and not hasattr(source_array, "__array__"):
        source_array = np.from_dlpack(source_array)
    if dtype is None and not hasattr(source_array, "dtype"):
        dtype = np.float32
    return np.array(source_array, dtype).view(NDArray)


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


def waitall() -> None:
    """Return at once: nothing is computed behind the caller's back."""


def save(
    fname: str | PathLike[str], data: NDArray | Sequence[Any] | Mapping[str, Any]
) -> None:
    """Write an array, a list or a dict of arrays in MXNet's format (`.nd`)."""
    from asyncmod.interop.mxnet_params import save_arrays

    arrays = [data] if isinstance(data, np.ndarray) else data
    save_arrays(fname, arrays)


def load(fname: str | PathLike[str]) -> list[NDArray] | dict[str, NDArray]:
    """Read what `save`, or MXNet, wrote: a list, or a dict if it has names.

    Raises:
        InvalidParameterFileError: the file is not in MXNet's format.
    """
    from asyncmod.interop.mxnet_params import load_arrays

    return load_arrays(fname)
