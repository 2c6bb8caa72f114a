"""Rough costs in microseconds, only for the choice between inline and thread."""

from __future__ import annotations

_FLOPS_PER_MICROSECOND = 40e3
_BYTES_PER_MICROSECOND = 8e3
ROW = 0.1


def multiply_adds(count: int) -> float:
    """Cost of that many multiply-adds in a blocked kernel."""
    return ROW + 2 * count / _FLOPS_PER_MICROSECOND


def floats(count: int) -> float:
    """Cost of streaming over that many float32 elements."""
    return ROW + 4 * count / _BYTES_PER_MICROSECOND
