"""Segments in shared memory: one file for all that a program brings along."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Mapping, Sequence

from runtime.devices.contract import Segment
from runtime.devices.host import HostSegment
from runtime.devices.process.journal_layout import Layout
from runtime.errors import DeviceError
from runtime.graph.plan import Plan, gaps, round_up, spans
from runtime.transport.shared_memory import SharedMemory

# What a program needs between two rows or two sections only; a worker keeps it for
# itself, and it can be computed again.
PRIVATE = frozenset({"arena", "halo", "packed", "scaled", "wide"})

_numbers = itertools.count(1)
_lock = threading.Lock()


class Block:
    """A file of shared memory that lives while some program uses it.

    Attributes:
        number: What workers know it by.
        memory: The memory.
    """

    def __init__(self, nbytes: int, spare: Sequence[tuple[int, int]] = ()) -> None:
        self.number = next(_numbers)
        self.memory = SharedMemory(nbytes, spare)
        self._users = 1

    def join(self) -> None:
        """One user more."""
        with _lock:
            self._users += 1

    def leave(self) -> None:
        """One user less; the last one closes the file."""
        with _lock:
            self._users -= 1
            last = self._users == 0
        if last:
            self.memory.close()


class SharedSegment(HostSegment):
    """A segment and where it lies.

    Attributes:
        block, offset: Where.
    """

    __slots__ = ("block", "offset")
    block: Block
    offset: int

    @classmethod
    def within(cls, block: Block, offset: int, nbytes: int) -> SharedSegment:
        segment = cls.__new__(cls)
        segment.data = block.memory.data[offset : offset + nbytes]
        segment.nbytes, segment.version = nbytes, 0
        segment.block, segment.offset = block, offset
        return segment

    @property
    def place(self) -> list[int]:
        """As a `compile` frame gives it: memory, offset, size."""
        return [self.block.number, self.offset, self.nbytes]


def lay_out(
    plan: Plan, shared: Mapping[str, Segment], slots: int, journal: Layout
) -> tuple[Block, dict[str, list[SharedSegment]], int]:
    """Make the memory that a program does not share with an older one.

    Returns:
        The new block, the segments in it by name and slot, the journal's offset.

    Raises:
        DeviceError: a segment to be shared is not in shared memory.
        MemoryError: there is not enough.
    """
    for name, segment in shared.items():
        if not isinstance(segment, SharedSegment):
            raise DeviceError(f"segment `{name}` does not lie in shared memory")
    own = {
        name: (nbytes, slots if name in plan.slotted else 1)
        for name, nbytes in plan.segments.items()
        if name not in shared and name not in PRIVATE
    }
    places: list[tuple[str, int, int]] = []
    offset = 0
    for name, (nbytes, copies) in own.items():
        for _ in range(copies):
            places.append((name, offset, nbytes))
            offset += round_up(nbytes)
    spare = [
        (begin + first, begin + last)
        for name, begin, nbytes in places
        for first, last in _spare(plan, name, nbytes)
    ]
    spare += [(offset + first, offset + last) for first, last in journal.by_rows]
    block = Block(offset + journal.nbytes, spare)
    made: dict[str, list[SharedSegment]] = {name: [] for name in own}
    for name, begin, nbytes in places:
        made[name].append(SharedSegment.within(block, begin, nbytes))
    return block, made, offset


def _spare(plan: Plan, name: str, nbytes: int) -> list[tuple[int, int]]:
    """What of a segment is used as far as there are rows, or not at all.

    Gradients lie as their parameters do, and row-sparse ones leave their place empty.
    """
    if name in plan.by_rows:
        return [(0, nbytes)]
    tensors = plan.tensors.get(name)
    return gaps(spans(tensors.values()), nbytes) if tensors else []
