"""Places for buffers: memory is reused as soon as a buffer is dead.

Buffers are placed largest first at the lowest offset that no buffer alive at the same
time covers (greedy by size: Pisarchyk and Lee, "Efficient Memory Management for Deep
Neural Net Inference", 2020). Images with a halo share memory only with images of equal
geometry, so that the halo, zeroed once, stays zero.

Next: `runtime.graph.plan`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from runtime.graph.draft import Buffer, Draft
from runtime.graph.plan import Address, round_up


@dataclass(frozen=True, slots=True)
class _Lifetime:
    buffer: Buffer
    first: int
    last: int

    def meets(self, other: _Lifetime) -> bool:
        return self.first <= other.last and other.first <= self.last


@dataclass(frozen=True)
class Placement:
    """Where every buffer lies, and how large the segments are."""

    addresses: dict[Buffer, Address]
    segments: dict[str, int]


def place(rows: Sequence[Draft], guards: int = 0) -> Placement:
    """Place all buffers that rows touch.

    Args:
        rows: All rows of all sections in the order in which a step runs them.
        guards: Bytes to leave free around every buffer. With guards nothing is reused,
            so that a write past an end is seen whenever it happens.
    """
    lifetimes = _lifetimes(rows)
    addresses: dict[Buffer, Address] = {}
    segments: dict[str, int] = {}
    arena: list[_Lifetime] = []
    haloed: dict[tuple[int, ...], list[_Lifetime]] = {}
    kept: dict[str, list[Buffer]] = {}
    for lifetime in lifetimes:
        buffer = lifetime.buffer
        if buffer.place is not None:
            addresses[buffer] = buffer.place.address
        elif buffer.segment != "arena":
            kept.setdefault(buffer.segment, []).append(buffer)
        elif buffer.geometry is not None:
            haloed.setdefault(buffer.geometry, []).append(lifetime)
        else:
            arena.append(lifetime)
    if guards:
        kept["arena"] = [lifetime.buffer for lifetime in arena]
        kept["halo"] = [life.buffer for lives in haloed.values() for life in lives]
    else:
        segments["arena"] = _reuse_by_size(arena, addresses)
        segments["halo"] = _reuse_by_geometry(haloed, addresses)
    for segment, buffers in kept.items():
        segments[segment] = _in_a_row(segment, buffers, guards, addresses)
    return Placement(addresses, {k: v for k, v in segments.items() if v})


def _lifetimes(rows: Iterable[Draft]) -> list[_Lifetime]:
    first: dict[Buffer, int] = {}
    last: dict[Buffer, int] = {}
    for position, row in enumerate(rows):
        for buffer in row.buffers:
            first.setdefault(buffer, position)
            last[buffer] = position
    return [_Lifetime(buffer, first[buffer], last[buffer]) for buffer in first]


def _reuse_by_size(lifetimes: list[_Lifetime], addresses: dict[Buffer, Address]) -> int:
    placed: list[tuple[int, int, _Lifetime]] = []
    total = 0
    for lifetime in sorted(lifetimes, key=lambda life: -life.buffer.nbytes):
        size = round_up(lifetime.buffer.nbytes)
        taken = sorted(
            (begin, end) for begin, end, other in placed if other.meets(lifetime)
        )
        offset = 0
        for begin, end in taken:
            if offset + size <= begin:
                break
            offset = max(offset, end)
        placed.append((offset, offset + size, lifetime))
        addresses[lifetime.buffer] = Address("arena", offset)
        total = max(total, offset + size)
    return total


def _reuse_by_geometry(
    classes: dict[tuple[int, ...], list[_Lifetime]], addresses: dict[Buffer, Address]
) -> int:
    total = 0
    for lifetimes in classes.values():
        slots: list[tuple[int, int]] = []  # offset, last row that uses it
        for lifetime in sorted(lifetimes, key=lambda life: life.first):
            for i, (offset, last) in enumerate(slots):
                if last < lifetime.first:
                    slots[i] = (offset, lifetime.last)
                    addresses[lifetime.buffer] = Address("halo", offset)
                    break
            else:
                slots.append((total, lifetime.last))
                addresses[lifetime.buffer] = Address("halo", total)
                total += round_up(lifetime.buffer.nbytes)
    return total


def _in_a_row(
    segment: str, buffers: list[Buffer], guards: int, addresses: dict[Buffer, Address]
) -> int:
    offset = guards
    for buffer in buffers:
        addresses[buffer] = Address(segment, offset)
        offset += round_up(buffer.nbytes) + guards
    return offset
