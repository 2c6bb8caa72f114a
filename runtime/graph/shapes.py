"""Partly known shapes, as shape rules and inference pass them around.

None stands for an unknown rank, 0 for an unknown size: MXNet's convention.
"""

from __future__ import annotations

from typing import TypeGuard

from runtime.errors import ShapeError
from runtime.graph.registry import PartialShape


def is_known(shape: PartialShape) -> TypeGuard[tuple[int, ...]]:
    """Whether rank and all sizes are known."""
    return shape is not None and 0 not in shape


def unify(first: PartialShape, second: PartialShape, what: str = "") -> PartialShape:
    """What two partly known shapes of one thing say together.

    Args:
        first: One shape.
        second: Another.
        what: The thing's name, for the error message.

    Raises:
        ShapeError: if the shapes contradict each other; names both.
    """
    if first is None or second is None:
        return second if first is None else first
    agree = len(first) == len(second) and all(
        a == b or 0 in (a, b) for a, b in zip(first, second, strict=True)
    )
    if not agree:
        subject = f"`{what}` cannot have both" if what else "there is no agreement of"
        raise ShapeError(f"{subject} shape {first} and shape {second}")
    return tuple(a or b for a, b in zip(first, second, strict=True))
