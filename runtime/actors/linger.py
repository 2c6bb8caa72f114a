"""Waiting a little while without the interpreter lock before a thread blocks.

To block and to be woken takes two trips through the kernel, and on a virtual machine a
core that fell asleep has to be woken too. A thread whose next work is likely to come
within some tenths of a millisecond therefore looks for it first. In Python it could
not: each look would take the interpreter lock from the threads that bring the work.
So this waits only where a device has native code for it, which gives the core away to
any other thread again and again.

Whoever brings the work must let go of the interpreter lock before the thread sees it:
else the thread blocks on that. And it should not want the lock back before the thread
has come to its native code. `Word.hand_over` sees to both.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Linger:
    """Native code that waits; the interpreter lock is free all the while.

    Attributes:
        until_changed: Returns once the int64 at an address differs from a value, or
            after a while.
        hand_over: Writes an int64 (address, value), and returns once the one at another
            address differs from a value, or after a short while.
    """

    until_changed: Callable[[int, int], None]
    hand_over: Callable[[int, int, int, int], None]


_linger: Linger | None = None
_here = threading.local()


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
            _linger.until_changed(self._address, value)

    def hand_over(self, value: int, departures: Word) -> None:
        """Set the number, for a thread that lingers, and see the thread off.

        Args:
            value: The number.
            departures: Where that thread counts its departures.
        """
        if _linger is None:
            self.value = value
        else:
            before = departures.value
            _linger.hand_over(self._address, value, departures._address, before)


def count_departures(word: Word) -> None:
    """Have this thread's departures counted there."""
    _here.departures = word


def depart() -> None:
    """This thread goes off into native code now: nobody need wait for that any more."""
    word: Word | None = getattr(_here, "departures", None)
    if word is not None:
        word.value += 1
