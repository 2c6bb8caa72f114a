"""A thread that lingers sees at once what another writes, and gives up in time."""

from __future__ import annotations

import ctypes
import os
import threading
import time
from collections.abc import Callable

import pytest

from runtime.actors.linger import Linger
from runtime.kernels.cpu.library import Library, load


@pytest.fixture
def linger() -> Linger:
    library = load()
    if not library.beside_threads:
        pytest.skip("one core, or no kernels: nothing lingers")
    return library.linger()


def lap(function: Callable[[], object]) -> float:
    begin = time.perf_counter()
    function()
    return time.perf_counter() - begin


def test_it_gives_up_after_a_while(linger: Linger) -> None:
    word = ctypes.c_int64(3)
    shortest = min(lap(lambda: linger(ctypes.addressof(word), 3)) for _ in range(5))
    assert 20e-6 < shortest < 20e-3


def test_it_returns_at_once_if_the_value_differs(linger: Linger) -> None:
    word = ctypes.c_int64(3)
    assert min(lap(lambda: linger(ctypes.addressof(word), 4)) for _ in range(5)) < 2e-5


def test_other_threads_run_meanwhile_and_are_seen(linger: Linger) -> None:
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


def test_nobody_lingers_on_one_core(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    assert not load().beside_threads


def test_nobody_lingers_without_kernels() -> None:
    assert not Library(None).beside_threads
