"""Waiting for another thread to change a word of memory, without the interpreter."""

from __future__ import annotations

from runtime.kernels.cpu.threads import give_way, read_shared, write_shared

# Some 0.2 us each: together longer than a task takes from one step's end to the next
# step's begin, and short against the scheduler's time slice.
TURNS = 3000
LOOKS = 32


def linger(address: int, value: int) -> None:
    """Return once the int64 at the address is not `value`, or after a while."""
    for _ in range(TURNS):
        for _ in range(LOOKS):
            if read_shared(address) != value:
                return
        give_way()


# As many turns take some 50 us: longer than a thread needs until it is in native code.
GLANCES = 250


def hand_over(address: int, value: int, other: int, before: int) -> None:
    """Write an int64, and return once another one is not `before`, or after a while.

    It gives way, since the thread that it waits for may need this very core.
    """
    write_shared(address, value)
    for _ in range(GLANCES):
        for _ in range(LOOKS):
            if read_shared(other) != before:
                return
        give_way()
