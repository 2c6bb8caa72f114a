"""A meeting ends for everybody when the last has come or one has failed."""

from __future__ import annotations

import ctypes
import threading
import time

from runtime.actors.meeting import Meeting
from tests.timing import check_fast


def come(meeting: Meeting) -> None:
    """Count one party in, as native code does."""
    ctypes.c_int64.from_address(meeting.address).value -= 1


def waiting(meeting: Meeting, ends: list[bool]) -> threading.Thread:
    thread = threading.Thread(target=lambda: ends.append(meeting.wait()))
    thread.start()
    return thread


def test_all_have_come() -> None:
    meeting, ends = Meeting(2), list[bool]()
    come(meeting)
    thread = waiting(meeting, ends)
    assert ends == []
    come(meeting)
    thread.join(10)
    assert ends == [True]


def test_one_has_failed() -> None:
    meeting, ends = Meeting(3), list[bool]()
    come(meeting)
    thread = waiting(meeting, ends)
    meeting.fail()
    thread.join(10)
    assert ends == [False]


def test_a_long_wait_leaves_the_core_to_others() -> None:
    def measure() -> float:
        meeting, shares = Meeting(1), list[float]()

        def wait() -> None:
            begin, used = time.monotonic(), time.thread_time()
            meeting.wait()
            shares.append((time.thread_time() - used) / (time.monotonic() - begin))

        thread = threading.Thread(target=wait)
        thread.start()
        thread.join(0.3)
        come(meeting)
        thread.join(10)
        return shares[0]

    check_fast(measure, 0.3)
