"""Files of arrays in MXNet's format."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike
from typing import Any

import numpy as np

from asyncmod.nd.array import NDArray


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
