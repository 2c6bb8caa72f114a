"""Waiting a little while without the interpreter lock before a thread blocks.

To block and to be woken takes two trips through the kernel, and on a virtual machine a
core that fell asleep has to be woken too. A thread whose next work is likely to come
within some tenths of a millisecond therefore looks for it first. In Python it could
not: each look would take the interpreter lock from the threads that bring the work.
So this waits only where a device has native code for it, which gives the core away to
any other thread again and again.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable

# Returns once the int64 at the address differs from the value, or after a while; the
# interpreter lock is free meanwhile.
Linger = Callable[[int, int], None]

_linger: Linger | None = None


def offer(how: Linger | None) -> None:
    """Let all threads of this process wait so from now on; None is ignored."""
    global _linger
    _linger = how or _linger


class Word:
    """A number that one thread changes while another waits for that."""

    __slots__ = ("_address", "_number")

    def __init__(self, value: int) -> None:
        self._number = ctypes.c_int64(value)
        self._address = ctypes.addressof(self._number)

    @property
    def value(self) -> int:
        """The number; native code may look at it meanwhile."""
        return self._number.value

    @value.setter
    def value(self, value: int) -> None:
        self._number.value = value

    def linger(self, value: int) -> None:
        """Return when the number is not `value` any more, or after a little while."""
        if _linger is not None and self._number.value == value:
            _linger(self._address, value)
