"""Guard zones: every byte of a segment that no tensor owns, watched for writes.

A debug mode. A plan compiled with `guards` leaves room between its tensors; here that
room is filled with a pattern, and looked at after every launch.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from runtime.errors import DeviceError
from runtime.graph.plan import Plan, Span, gaps, spans

_PATTERN = 0xA5


class Guards:
    """The guard zones of one program.

    Args:
        plan: The program's plan.
        memory: The bytes of a segment by name and slot.
        slots: How many copies slotted segments have.
    """

    def __init__(
        self,
        plan: Plan,
        memory: Callable[[str, int], NDArray[np.uint8]],
        slots: int,
    ) -> None:
        self._zones: list[tuple[str, int, NDArray[np.uint8]]] = []
        owned = _owned(plan)
        for segment, nbytes in plan.segments.items():
            if segment not in owned:  # such as the journal that a worker brings along
                continue
            zones = gaps(owned[segment], nbytes)
            for slot in range(slots if segment in plan.slotted else 1):
                data = memory(segment, slot)
                for begin, end in zones:
                    self._zones.append((segment, begin, data[begin:end]))
        for _, _, zone in self._zones:
            zone.fill(_PATTERN)

    def check(self, section: str) -> None:
        """Look at every zone.

        Raises:
            DeviceError: naming the segment and the first byte that was overwritten.
        """
        for segment, begin, zone in self._zones:
            touched = np.flatnonzero(zone != _PATTERN)
            if touched.size:
                raise DeviceError(
                    f"section `{section}` wrote outside of its tensors: byte "
                    f"{begin + int(touched[0])} of segment `{segment}` "
                    f"({touched.size} bytes in that guard zone)"
                )


def _owned(plan: Plan) -> dict[str, list[Span]]:
    """What belongs to tensors and to the rows' buffers, by segment."""
    owned: dict[str, list[Span]] = {}
    rows = [row for section in plan.sections.values() for row in section]
    face = spans(t for tensors in plan.tensors.values() for t in tensors.values())
    for span in (*face, *(s for row in rows for s in (*row.reads, *row.writes))):
        owned.setdefault(span.segment, []).append(span)
    return owned
