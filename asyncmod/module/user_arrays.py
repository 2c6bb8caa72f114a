"""Arrays as users get them from modules: `mx.nd.NDArray` over the same memory."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from asyncmod.module.batches import Array
from asyncmod.nd import NDArray

Parameters = dict[str, NDArray]


def face(array: Array) -> NDArray:
    """The same array as users see it."""
    return array.view(NDArray)


def faces(arrays: Iterable[Array]) -> list[NDArray]:
    """The same arrays as users see them."""
    return [face(array) for array in arrays]


def named_faces(arrays: Mapping[str, Array]) -> Parameters:
    """The same arrays as users see them, by name."""
    return {name: face(array) for name, array in arrays.items()}


def copies(
    arguments: Mapping[str, Array], auxiliaries: Mapping[str, Array]
) -> tuple[Parameters, Parameters]:
    """Copies of parameters and auxiliary states."""
    return (
        {name: face(np.array(array)) for name, array in arguments.items()},
        {name: face(np.array(array)) for name, array in auxiliaries.items()},
    )
