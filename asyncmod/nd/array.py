"""NDArray: a NumPy array with the members that MXNet's has besides.

Members that NumPy has too are NumPy's: `flatten` gives one axis, `argmax` integers, and
one element of an array is a NumPy number. Nothing is lazy.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from asyncmod.shapes import as_shape

if TYPE_CHECKING:
    from asyncmod.context import Context

_GRADIENTS = "gradients come from mx.Module or mx.bind"
_ABSENT = {"attach_grad": _GRADIENTS, "backward": _GRADIENTS, "grad": _GRADIENTS}
# What `reshape` knows beside sizes and -1: copy a size, copy the rest, merge, split.
_CODES = {0, -2, -3, -4}


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

    def tostype(self, stype: str) -> Any:
        """This array for "default", else a copy as "csr" or "row_sparse".

        Raises:
            ArgumentError: another storage type.
        """
        from asyncmod.nd.sparse import cast_storage

        return self if stype == "default" else cast_storage(self, stype)

    def split_v2(
        self,
        indices_or_sections: int | Sequence[int],
        axis: int = 0,
        squeeze_axis: bool = False,
    ) -> list[NDArray]:
        """`mx.nd.split_v2` of this array."""
        from asyncmod.nd.make import split_v2

        return split_v2(self, indices_or_sections, axis, squeeze_axis)

    def detach(self) -> NDArray:
        """This array; none takes part in automatic differentiation."""
        return self

    def as_nd_ndarray(self) -> NDArray:
        """This array."""
        return self

    def reshape(self, *shape: Any, **options: Any) -> Any:
        """Another shape of the same elements; MXNet's codes 0, -2, -3, -4 work too.

        Args:
            *shape: The sizes, one by one or as a tuple; or as `shape=`.
            **options: `reverse=True` reads the codes from the right; else NumPy's.

        Raises:
            ShapeError, ValueError: the sizes do not fit.
        """
        given = options.pop("shape", shape)
        if len(given) == 1 and not np.isscalar(given[0]):
            [given] = given
        sizes = as_shape(given)
        reverse = bool(options.pop("reverse", False))
        if reverse or (self.size and _CODES.intersection(sizes)):
            from asyncmod.nd.operators import operator_function

            return operator_function("Reshape")(self, shape=sizes, reverse=reverse)
        return super().reshape(sizes, **options)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        """The operators that are members in MXNet: `array.expand_dims(axis=1)`."""
        from asyncmod.nd.operators import operator_function
        from asyncmod.symbol.fluent import METHODS

        if name in METHODS:
            return partial(operator_function(METHODS[name]), self)
        hint = f": {_ABSENT[name]}" if name in _ABSENT else ""
        raise AttributeError(f"an mx.nd array has no `{name}`{hint}")


def as_given(array: Any) -> Any:
    """An NDArray over the same memory, for code of the user's; else what is given.

    Args:
        array: An array, or something else that may stand in its place.
    """
    return array.view(NDArray) if isinstance(array, np.ndarray) else array
