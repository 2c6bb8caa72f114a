"""The weights of all gates of a cell in one array, or one array per gate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np

from asyncmod.errors import ArgumentError
from asyncmod.nd import NDArray

_KINDS = tuple(product(("i2h", "h2h"), ("weight", "bias")))


def unpack(
    args: Mapping[str, Any], prefix: str, gates: Sequence[str]
) -> dict[str, Any]:
    """Cut `i2h` and `h2h` arrays into one per gate, along their first axis.

    Raises:
        ArgumentError: one is missing, or cannot be cut into equal parts.
    """
    unpacked = dict(args)
    for group, kind in _KINDS if gates else ():
        whole = _take(unpacked, f"{prefix}{group}_{kind}")
        if len(whole) % len(gates):
            raise ArgumentError(
                f"`{prefix}{group}_{kind}` has {len(whole)} rows, which cannot be "
                f"divided among {len(gates)} gates"
            )
        for gate, part in zip(gates, np.split(whole, len(gates)), strict=True):
            unpacked[f"{prefix}{group}{gate}_{kind}"] = part.copy().view(NDArray)
    return unpacked


def pack(args: Mapping[str, Any], prefix: str, gates: Sequence[str]) -> dict[str, Any]:
    """Join the arrays of the gates again.

    Raises:
        ArgumentError: one is missing.
    """
    packed = dict(args)
    for group, kind in _KINDS if gates else ():
        parts = [_take(packed, f"{prefix}{group}{gate}_{kind}") for gate in gates]
        packed[f"{prefix}{group}_{kind}"] = np.concatenate(parts).view(NDArray)
    return packed


def _take(args: dict[str, Any], name: str) -> Any:
    if name not in args:
        raise ArgumentError(
            f"`{name}` is missing: the parameters of the cell must all be there"
        )
    return args.pop(name)
