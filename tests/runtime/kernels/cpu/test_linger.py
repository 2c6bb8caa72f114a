"""A thread that lingers sees at once what another writes, and gives up in time."""

from __future__ import annotations

import ctypes
import os
import threading
import time
from collections.abc import Callable

import pytest

from runtime.kernels.cpu.library import Library, load

Wait = Callable[[int, int], None]
HandOver = Callable[[int, int, int, int], None]


@pytest.fixture
def library() -> Library:
    library = load()
    if not library.beside_threads:
        pytest.skip("one core, or no kernels: nothing lingers")
    return library


@pytest.fixture
def linger(library: Library) -> Wait:
    return library.linger()


@pytest.fixture
def hand_over(library: Library) -> HandOver:
    return library.hand_over()


def lap(function: Callable[[], object]) -> float:
    begin = time.perf_counter()
    function()
    return time.perf_counter() - begin


def test_it_gives_up_after_a_while(linger: Wait) -> None:
    word = ctypes.c_int64(3)
    shortest = min(lap(lambda: linger(ctypes.addressof(word), 3)) for _ in range(5))
    assert 20e-6 < shortest < 20e-3


def test_it_returns_at_once_if_the_value_differs(linger: Wait) -> None:
    word = ctypes.c_int64(3)
    assert min(lap(lambda: linger(ctypes.addressof(word), 4)) for _ in range(5)) < 2e-5


def test_other_threads_run_meanwhile_and_are_seen(linger: Wait) -> None:
    """The interpreter lock is free: else the writer could not write."""
    word, seen = ctypes.c_int64(0), threading.Event()

    def look() -> None:
        while word.value == 0:
            linger(ctypes.addressof(word), 0)
        seen.set()

    thread = threading.Thread(target=look)
    thread.start()
    word.value = 1
    assert seen.wait(10)
    thread.join()


def test_what_is_handed_over_is_written_and_seen_off(hand_over: HandOver) -> None:
    """The interpreter lock is free: else nobody could be seen off."""
    word, departures = ctypes.c_int64(0), ctypes.c_int64(7)
    places = ctypes.addressof(word), ctypes.addressof(departures)

    def take() -> None:
        while word.value < 100:
            departures.value = 7 + word.value

    thread = threading.Thread(target=take)
    thread.start()
    for value in range(1, 101):
        hand_over(places[0], value, places[1], departures.value)
        assert word.value == value
    thread.join()


def test_nobody_waits_long_for_a_departure(hand_over: HandOver) -> None:
    word, departures = ctypes.c_int64(0), ctypes.c_int64(7)
    places = ctypes.addressof(word), ctypes.addressof(departures)
    full = min(lap(lambda: hand_over(places[0], 5, places[1], 7)) for _ in range(5))
    none = min(lap(lambda: hand_over(places[0], 5, places[1], 6)) for _ in range(5))
    assert none < full < 1e-3
    assert none < 2e-5


def test_nobody_lingers_on_one_core(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    assert not load().beside_threads


def test_nobody_lingers_without_kernels() -> None:
    assert not Library(None).beside_threads
