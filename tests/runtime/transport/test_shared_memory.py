"""Memory that has no name, and that two processes can map."""

from __future__ import annotations

import errno
import os

import numpy as np
import pytest

from runtime.transport import shared_memory
from runtime.transport.shared_memory import SharedMemory


@pytest.fixture(params=["memfd", "unlinked file", "unlinked file, no fallocate"])
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param != "memfd":
        monkeypatch.delattr(os, "memfd_create")
    if "no fallocate" in request.param:
        monkeypatch.delattr(os, "posix_fallocate")


@pytest.mark.usefixtures("kind")
@pytest.mark.parametrize("nbytes", [1, 4096, 3_000_001])
def test_both_sides_see_the_same_bytes(nbytes: int) -> None:
    before = set(os.listdir("/dev/shm"))
    here = SharedMemory(nbytes)
    assert here.data.shape == (nbytes,)
    assert not here.data.any()
    assert os.fstat(here.fd).st_blocks * 512 >= nbytes  # reserved, not only promised
    there = SharedMemory.attach(os.dup(here.fd), nbytes)
    there.data[-1] = 7
    assert here.data[-1] == 7
    assert set(os.listdir("/dev/shm")) == before
    there.close()
    here.close()
    here.close()


@pytest.mark.parametrize("strict", [False, True])
def test_what_may_stay_untouched_is_not_reserved(
    strict: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_memory, "commits_strictly", lambda: strict)
    spare = [(0, 1 << 20), ((1 << 20) + 4096, 4 << 20)]
    memory = SharedMemory(4 << 20, spare)
    assert os.fstat(memory.fd).st_blocks * 512 == (4 << 20 if strict else 4096)
    memory.data[2 << 20] = 1
    assert not memory.data[: 2 << 20].any()
    memory.close()


@pytest.mark.usefixtures("kind")
def test_a_file_in_a_file_system_is_always_reserved() -> None:
    memory = SharedMemory(3_000_001, [(4096, 3_000_000)])
    held = os.fstat(memory.fd).st_blocks * 512
    assert (held < 100_000) is hasattr(os, "memfd_create")
    memory.close()


def test_views_outlive_the_file() -> None:
    memory = SharedMemory(64)
    view = memory.data[:8].view(np.int64)
    memory.close()
    view[0] = 5
    assert view[0] == 5


def test_nothing_at_all_can_be_shared() -> None:
    memory = SharedMemory(0)
    assert memory.nbytes == 1
    memory.close()


@pytest.mark.usefixtures("kind")
def test_more_than_the_machine_has_is_not_tried(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(shared_memory, "available_memory", lambda: 4095)
    with pytest.raises(MemoryError, match=r"4096 bytes .* wanted, 4095 are available"):
        SharedMemory(4096)
    SharedMemory(4095).close()


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.ENOMEM, errno.EFBIG])
@pytest.mark.parametrize("call", ["posix_fallocate", "pwrite"])
def test_a_file_system_that_is_full(
    call: str, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: object) -> None:
        raise OSError(number, "full")

    monkeypatch.delattr(os, "memfd_create")
    if call == "pwrite":
        monkeypatch.delattr(os, "posix_fallocate")
    monkeypatch.setattr(os, call, full)
    with pytest.raises(MemoryError, match=r"4096 bytes .* wanted, \d+ are available"):
        SharedMemory(4096)


def test_a_file_that_is_too_small_is_refused() -> None:
    memory = SharedMemory(100)
    with pytest.raises(ValueError, match="of 100 bytes, 101 are needed"):
        SharedMemory.attach(os.dup(memory.fd), 101)
    memory.close()
