"""Settings of optimizers, checked.

Each check returns the setting, so that it can stand where it is taken over.
"""

from __future__ import annotations

import math

from runtime.errors import AsyncmodError


class OptimizerError(AsyncmodError, ValueError):
    """A setting of an optimizer is not possible."""


def check_finite(argument: str, value: float) -> float:
    """`value`, if it is a finite number.

    Raises:
        OptimizerError: it is NaN or infinite.
    """
    if not math.isfinite(value):
        raise OptimizerError(f"`{argument}` must be a finite number, not {value}")
    return value


def check_learning_rate(lr: float) -> float:
    """`lr`, if it is finite and not negative.

    Raises:
        OptimizerError: it is not.
    """
    if not (math.isfinite(lr) and lr >= 0):
        raise OptimizerError(
            f"`learning_rate` must be finite and not negative, and it is {lr}"
        )
    return lr


def check_share(argument: str, value: float) -> float:
    """`value`, if it can be the share that a running mean keeps.

    Raises:
        OptimizerError: it is not at least 0 and less than 1.
    """
    if not 0 <= value < 1:
        raise OptimizerError(
            f"`{argument}` must be at least 0 and less than 1, not {value}"
        )
    return value


def check_bound(argument: str, value: float | None) -> float | None:
    """`value`, if it is None or finite.

    Raises:
        OptimizerError: it is NaN or infinite.
    """
    return None if value is None else check_finite(argument, value)


def bound_or_none(value: float | None) -> float:
    """A bound as rules take it: -1 for None, 0 and negative values, which mean none."""
    return float(value) if value is not None and value > 0 else -1.0
