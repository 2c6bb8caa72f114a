"""The check that no test leaves anything behind finds each kind of thing left."""

from __future__ import annotations

import os
import tempfile
from multiprocessing import shared_memory
from pathlib import Path

import pytest
import trio

from tests.leaks import SHARED_MEMORY, Resources

# Runs in a process of its own, since it leaves things behind on purpose.
LEAVERS = """
import os, subprocess, sys, threading
from multiprocessing import shared_memory
import trio

kept = []

def test_thread():
    kept.append(threading.Event())
    threading.Thread(target=kept[-1].wait, name="lost", daemon=True).start()

def test_process():
    command = [sys.executable, "-c", "print(flush=True); input()"]
    kept.append(subprocess.Popen(command, stdin=-1, stdout=-1))
    # Its command line is there from the moment when it speaks.
    kept[-1].stdout.readline()

def test_ended_process():
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)

def test_descriptor():
    kept.append(os.open(os.devnull, os.O_RDONLY))

def test_shared_memory():
    segment = shared_memory.SharedMemory(create=True, size=8)
    segment.close()
    print("made", segment.name)

def test_nothing():
    segment = shared_memory.SharedMemory(create=True, size=8)
    segment.close()
    segment.unlink()
    trio.run(trio.to_thread.run_sync, int)
    kept[0].set()
"""


def test_each_kind_is_found(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent.parent))
    # What is left here stays: a short wait finds it.
    pytester.makeconftest(
        "from tests import conftest\n"
        "from tests.conftest import nothing_left_behind\n"
        "conftest.ENDING_SECONDS = 0.1\n"
    )
    pytester.makepyfile(LEAVERS)
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider")
    result.assert_outcomes(passed=6, errors=5)
    result.stdout.fnmatch_lines_random(
        [
            "*thread 'lost' (daemon: True)",
            "*process * -c print(flush=True); input()*",
            "*process * (ended, not waited for)",
            "*file descriptor * (/dev/null)",
            "*shared memory /dev/shm/*",
        ]
    )


def test_segment_mapped_by_an_unrelated_process_is_not_ours(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = Resources.now()
    segment = shared_memory.SharedMemory(create=True, size=8)
    try:
        [line] = (x for x in Resources.now().beyond(before) if "shared" in x)
        assert segment.name in line
        # This process itself plays the unrelated one.
        monkeypatch.setattr(os, "getpid", lambda: -1)
        assert not any("shared" in x for x in Resources.now().beyond(before))
    finally:
        monkeypatch.undo()
        segment.close()
        segment.unlink()
    assert Resources.now().beyond(before) == []


def test_what_is_named_after_another_process_is_not_ours() -> None:
    before = Resources.now()
    for owner, seen in ((os.getpid(), True), (os.getppid(), False)):
        with tempfile.TemporaryDirectory(dir=SHARED_MEMORY, prefix=f"{owner}-"):
            left = Resources.now().beyond(before)
            assert any("shared" in line for line in left) is seen


async def test_idle_thread_of_trio_is_no_leak() -> None:
    before = Resources.now()
    await trio.to_thread.run_sync(int)
    assert Resources.now().beyond(before) == []
