"""Initializers in plain NumPy, under MXNet's names."""

from asyncmod.initializer.base import (
    InitDesc,
    Initializer,
    InitializerError,
    alias,
    create,
    register,
)
from asyncmod.initializer.combined import Load, LoadMismatchError, Mixed
from asyncmod.initializer.drawn import MSRAPrelu, Normal, Orthogonal, Uniform, Xavier
from asyncmod.initializer.fixed import Bilinear, Constant, LSTMBias, One, Zero
from asyncmod.initializer.fused import FusedRNN

__all__ = [
    "Bilinear",
    "Constant",
    "FusedRNN",
    "InitDesc",
    "Initializer",
    "InitializerError",
    "LSTMBias",
    "Load",
    "LoadMismatchError",
    "MSRAPrelu",
    "Mixed",
    "Normal",
    "One",
    "Orthogonal",
    "Uniform",
    "Xavier",
    "Zero",
    "alias",
    "create",
    "register",
]
