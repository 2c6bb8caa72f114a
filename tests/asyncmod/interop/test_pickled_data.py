"""Pickles of plain data come back whole, and no pickle is ever run."""

from __future__ import annotations

import contextlib
import os
import pickle
import struct
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from asyncmod.interop import pickled_data
from asyncmod.interop.pickled_data import Call, PickledDataError

PLAIN = {
    "numbers": [0, -1, 255, 65536, 2**31, -(2**70), 0.5, True, False],
    "texts": ("", "a", "ä" * 300, "\n'\""),
    3: None,
    "nested": {"empty": [(), [], {}], 1: ((1,), (1, 2), (1, 2, 3), (1, 2, 3, 4))},
}


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_plain_data_comes_back(protocol: int) -> None:
    assert pickled_data.read(pickle.dumps(PLAIN, protocol)) == PLAIN
    shared = [1, 2]
    first, second = pickled_data.read(pickle.dumps([shared, shared], protocol))
    assert first is second


@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_bytes_come_back(protocol: int) -> None:
    for content in (b"", b"x" * 10, bytes(range(256)) * 300):
        assert pickled_data.read(pickle.dumps(content, protocol)) == content


class Payload:
    """Would make a file if it were unpickled by Python."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_nothing_is_called(protocol: int, tmp_path: Path) -> None:
    trace = tmp_path / "was here"
    for function, arguments in (
        (os.system, (f"touch '{trace}'",)),
        (eval, (f"open({str(trace)!r}, 'w')",)),
        (open, (str(trace), "w")),
        (os.mkdir, (str(trace),)),
    ):
        content = pickle.dumps(Payload(function, *arguments), protocol)
        asked = pickled_data.read(content)
        assert isinstance(asked, Call)
        assert asked.function.endswith(f".{function.__name__}")
        assert asked.arguments == arguments
        assert not trace.exists()
    pickle.loads(content)
    assert trace.exists()  # so it would have been


def instructions(*parts: bytes) -> bytes:
    return b"\x80\x04" + b"".join(parts) + b"."


HOSTILE = {
    "nothing": b"",
    "no end": b"\x80\x04N",
    "an end alone": b"\x80\x04.",
    "two values": instructions(b"NN"),
    "bytes behind the end": instructions(b"N") + b"N",
    "no such instruction": instructions(b"\xff"),
    "text as of 2 GB": instructions(b"X" + struct.pack("<I", 2**31) + b"a"),
    "bytes as of 2**62": instructions(b"\x8e" + struct.pack("<Q", 2**62) + b"a"),
    "a long of 2 GB": instructions(b"\x8b" + struct.pack("<i", 2**31 - 1) + b"a"),
    "a negative length": instructions(b"\x8b" + struct.pack("<i", -1)),
    "an element of nothing": instructions(b"Na"),
    "an item of a number": instructions(b"K\x01K\x02K\x03s"),
    "a key that is a list": instructions(b"}]Ns"),
    "half an item": instructions(b"}(K\x01u"),
    "a tuple of nothing": instructions(b"\x87"),
    "a mark that is missing": instructions(b"t"),
    "a memory that is missing": instructions(b"h\x05"),
    "a call of a number": instructions(b"K\x01)R"),
    "a call with a number": instructions(b"cos\nsystem\nK\x01R"),
    "a state for a number": instructions(b"K\x01}b"),
    "a persistent object": instructions(b"Pname\n"),
    "an extension": instructions(b"\x82\x01"),
    "a set": instructions(b"\x8f"),
    "an object made by keywords": instructions(b"cos\nsystem\n)}\x92"),
    "a number of 10,000 digits": b"I" + b"9" * 10_000 + b"\n.",
    "no text": instructions(b"X\x01\x00\x00\x00\xff"),
    "a name that is a number": instructions(b"K\x01K\x02\x93"),
}


@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE)
def test_what_is_refused(content: bytes) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(PickledDataError, match="no pickle of plain data"):
            pickled_data.read(content)
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


def test_a_place_in_memory_may_have_any_number() -> None:
    """Python's own reader makes room for all places below it."""
    content = instructions(b"Nr" + struct.pack("<I", 2**32 - 1))
    tracemalloc.start()
    assert pickled_data.read(content) is None
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()


def test_deep_nesting_is_no_matter() -> None:
    depth = 100_000
    nested = pickled_data.read(instructions(b")" + b"\x85" * depth))
    for _ in range(depth):
        (nested,) = nested


def test_damaged_pickles_are_refused_or_read() -> None:
    """One byte changed at a time: never another error."""
    content = pickle.dumps(PLAIN, 4)
    for i in range(len(content)):
        for value in (0, 40, 82, 98, 125, 148, 255):
            damaged = content[:i] + bytes([value]) + content[i + 1 :]
            with contextlib.suppress(PickledDataError):
                pickled_data.read(damaged)
