"""Pooling_v1: inputs and attributes, recorded with MXNet 1.9.1."""

from __future__ import annotations

from typing import Any

import numpy as np

# Whole numbers below 0, of which many are equal.
_DATA = -np.random.RandomState(13).randint(0, 4, (2, 3, 7, 6)).astype(np.float64)
_WINDOWS: dict[str, dict[str, Any]] = {
    "plain": {"kernel": (2, 3)},
    "padded": {"kernel": (3, 3), "stride": (2, 2), "pad": (1, 1)},
    "full": {"kernel": (3, 2), "stride": (3, 4), "pooling_convention": "full"},
    "whole": {"global_pool": True, "kernel": (2, 2), "pad": (1, 1)},
}
CASES: dict[str, tuple[str, list[Any], dict[str, Any]]] = {
    f"{pool_type}_{name}": ("Pooling_v1", [_DATA], {"pool_type": pool_type, **windows})
    for pool_type in ("max", "avg", "sum")
    for name, windows in _WINDOWS.items()
}
