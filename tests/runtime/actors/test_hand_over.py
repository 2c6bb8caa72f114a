"""Work for a device thread that lingers is handed over without the interpreter lock."""

from __future__ import annotations

import threading
from ctypes import c_int64

import pytest

from runtime.actors import linger
from runtime.actors.command import Command
from runtime.actors.device_thread import DeviceThread
from runtime.actors.linger import Linger, Word, count_departures, depart


class Lingering:
    """Stands for the native code: waits in Python, and notes what is handed over."""

    def __init__(self) -> None:
        self.begun = threading.Semaphore(0)
        self.ended = threading.Semaphore(0)
        self.handed: list[int] = []

    def until_changed(self, address: int, value: int) -> None:
        self.begun.release()
        self.ended.acquire()

    def hand_over(self, address: int, value: int, other: int, before: int) -> None:
        assert c_int64.from_address(other).value == before
        c_int64.from_address(address).value = value
        self.handed.append(value)
        self.ended.release()


@pytest.fixture
def lingering(monkeypatch: pytest.MonkeyPatch) -> Lingering:
    waits = Lingering()
    how = Linger(waits.until_changed, waits.hand_over)
    monkeypatch.setattr(linger, "_linger", how)
    return waits


async def send(thread: DeviceThread, label: str) -> None:
    command = Command(label, [lambda: None], ["cpu(0)"])
    thread.put(command, 0)
    await command.wait()


async def test_only_a_thread_that_lingers_is_handed_work(lingering: Lingering) -> None:
    thread = DeviceThread("cpu(0)")
    await send(thread, "first")  # it slept
    assert lingering.handed == []
    lingering.begun.acquire()
    await send(thread, "second")
    lingering.begun.acquire()
    await send(thread, "third")
    assert lingering.handed == [2, 3]
    lingering.ended.release()
    thread.stop()
    await thread.join()


async def test_an_observer_is_told_before_the_end(lingering: Lingering) -> None:
    seen: list[str] = []

    def observe(event: str, thread: str, command: Command[None]) -> None:
        if command.label == "second":
            if event == "queued":
                lingering.ended.release()  # now the thread may see it
            seen.append(event)

    thread = DeviceThread("cpu(0)", observe)
    await send(thread, "first")
    lingering.begun.acquire()
    await send(thread, "second")
    assert lingering.handed == []
    assert seen == ["queued", "reached", "began", "ended"]
    lingering.ended.release()
    thread.stop()
    await thread.join()


def test_departures_count_by_thread() -> None:
    depart()  # nobody counts this thread's
    word = Word(0)

    def run() -> None:
        count_departures(word)
        depart()
        depart()

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    depart()
    assert word.value == 2


def test_without_native_code_the_number_is_written(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(linger, "_linger", None)
    word = Word(1)
    word.hand_over(5, Word(0))
    assert word.value == 5
