"""Segments in shared memory: one file for all that a program brings along."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Mapping

from runtime.devices.contract import Segment
from runtime.devices.host import HostSegment
from runtime.errors import DeviceError
from runtime.graph.plan import Plan, round_up
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

    def __init__(self, nbytes: int) -> None:
        self.number = next(_numbers)
        self.memory = SharedMemory(nbytes)
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
    plan: Plan, shared: Mapping[str, Segment], slots: int, journal: int
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
    total = sum(round_up(nbytes) * copies for nbytes, copies in own.values())
    block = Block(total + journal)
    made: dict[str, list[SharedSegment]] = {}
    offset = 0
    for name, (nbytes, copies) in own.items():
        made[name] = []
        for _ in range(copies):
            made[name].append(SharedSegment.within(block, offset, nbytes))
            offset += round_up(nbytes)
    return block, made, offset
