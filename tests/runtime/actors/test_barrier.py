"""Barriers let everybody pass together, or nobody."""

from __future__ import annotations

import threading
import time

import pytest

from runtime.actors.barrier import Barrier
from tests.timing import check_fast


def in_threads(count: int, body: object) -> list[object]:
    results: list[object] = [None] * count

    def run(index: int) -> None:
        results[index] = body(index)  # type: ignore[operator]

    threads = [threading.Thread(target=run, args=(i,)) for i in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()
    return results


def test_nobody_passes_before_the_last_has_come() -> None:
    barrier, come = Barrier(3), []

    def arrive(index: int) -> int:
        come.append(index)
        assert barrier.wait()
        return len(come)

    assert in_threads(3, arrive) == [3, 3, 3]


def test_a_failure_sends_everybody_away() -> None:
    barrier = Barrier(3)

    def arrive(index: int) -> bool:
        if index == 1:
            barrier.fail()
            return False
        return barrier.wait()

    assert in_threads(3, arrive) == [False, False, False]


def test_who_comes_after_a_failure_does_not_wait() -> None:
    barrier = Barrier(2)
    barrier.fail()
    assert not barrier.wait()


def test_one_party_never_waits() -> None:
    assert Barrier(1).wait()


def test_waiting_costs_no_processor_time() -> None:
    def measure() -> float:
        barrier, waiting = Barrier(2), threading.Event()
        used = []

        def wait() -> None:
            begin = time.thread_time()
            waiting.set()
            barrier.wait()
            used.append(time.thread_time() - begin)

        thread = threading.Thread(target=wait)
        thread.start()
        assert waiting.wait(10)
        thread.join(0.1)  # it waits for us
        barrier.wait()
        thread.join(10)
        return used[0]

    check_fast(measure, 0.01)


def test_arriving_is_not_waiting() -> None:
    barrier = Barrier(2)
    barrier.arrive()
    barrier.arrive()
    assert barrier.join()
    assert barrier.join()


@pytest.mark.parametrize("rounds", [300])
def test_many_meetings_never_miss_a_wake_up(rounds: int) -> None:
    barriers = [Barrier(2) for _ in range(rounds)]
    passed = in_threads(2, lambda index: sum(barrier.wait() for barrier in barriers))
    assert passed == [rounds, rounds]
