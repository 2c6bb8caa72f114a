"""MXNet's file formats: `mx.interop.mxnet`."""

from asyncmod.interop.mxnet_params import (
    InvalidParameterFileError,
    load_arrays,
    load_params,
    save_arrays,
    save_params,
)
from asyncmod.interop.mxnet_states import load_optimizer_states

__all__ = [
    "InvalidParameterFileError",
    "load_arrays",
    "load_optimizer_states",
    "load_params",
    "save_arrays",
    "save_params",
]
