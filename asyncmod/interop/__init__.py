"""Formats of other libraries; each file here is a leaf, loaded when it is used."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from asyncmod.interop import mxnet

__all__ = ["mxnet"]


def __getattr__(name: str) -> Any:
    """Load a format when it is first asked for."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return import_module(f"{__name__}.{name}")
