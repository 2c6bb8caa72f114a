"""Gradients of the outputs that a backward begins with, given by the caller."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray

from runtime.errors import GradientError
from runtime.executor.checks import check_arrays
from runtime.executor.merging import Merge

Array = NDArray[Any]


class Heads:
    """See the module; `merge` is that of the outputs that need one, None for none."""

    def __init__(self, merge: Merge | None, members: int) -> None:
        self._merge = merge
        self._members = members
        self._names = () if merge is None else merge.names

    def check(self, given: Mapping[str, Array]) -> None:
        """Raise GradientError unless all that are needed are given."""
        for name in self._names:
            if name not in given:
                raise GradientError(
                    f"output `{name}` is no loss, so backward needs its gradient: "
                    "give one array for each output (out_grads), or end the graph in "
                    "a loss such as MakeLoss"
                )

    def split(self, given: Mapping[str, Array]) -> list[dict[str, Array]]:
        """Each member's part of those that are needed.

        Raises:
            GradientError: one is missing.
            ShapeError: one has not the shape of its output.
        """
        parts: list[dict[str, Array]] = [{} for _ in range(self._members)]
        merge = self._merge
        if merge is None:
            return parts
        self.check(given)
        shapes = dict(zip(merge.names, merge.shapes, strict=True))
        wanted = {name: given[name] for name in merge.names}
        checked = check_arrays("head gradient", wanted, shapes)
        for part, places in zip(parts, merge.parts, strict=True):
            for name, place in zip(merge.names, places or (), strict=False):
                part[name] = checked[name] if place is None else checked[name][place]
        return parts
