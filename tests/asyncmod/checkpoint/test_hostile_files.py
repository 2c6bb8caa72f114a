"""Files that are damaged, or made to do harm: refused, and at no great cost."""

from __future__ import annotations

import contextlib
import random
import re
import tracemalloc
import zlib
from pathlib import Path
from typing import Any

import hypothesis
import msgpack
import numpy as np
import pytest
from hypothesis import strategies as st

from asyncmod.checkpoint import CheckpointError, open_checkpoint, write_checkpoint
from asyncmod.checkpoint.header import longest_header
from asyncmod.checkpoint.layout import BLOCK, TRAILER, data_begin
from tests.asyncmod.checkpoint.forging import (
    CONTENT,
    forge,
    header_of,
    record,
    with_trailer,
)
from tests.asyncmod.checkpoint.mutations import load, mutated
from tests.asyncmod.checkpoint.samples import GOLDEN, GOLDEN_FILES, HEADER

ZEROS = bytes(64)


def refusal(path: Path, verify: Any) -> str:
    """What is said when a file is opened and read."""

    def read() -> None:
        file = open_checkpoint(path, verify)
        try:
            dict(file)
        finally:
            file.close()

    with pytest.raises(CheckpointError) as caught:
        read()
    return str(caught.value)


def a_file(path: Path) -> Path:
    """A file with small arrays, and one of two blocks."""
    arrays = {
        "small": np.arange(5, dtype=np.float32),
        "large": np.arange(BLOCK + 100, dtype=np.uint8),
        "last": np.ones(3, np.float16),
    }
    write_checkpoint(path, HEADER, arrays)
    return path


def refused(path: Path, content: bytes, message: str = "no valid checkpoint") -> str:
    """Assert that the file is refused, and what is said."""
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=message) as caught:
        open_checkpoint(path)
    assert str(path) in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("name", GOLDEN_FILES)
def test_no_file_that_is_cut_off_is_accepted(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    content = (GOLDEN / name).read_bytes()
    path.write_bytes(content)
    with path.open("r+b") as file:
        for length in reversed(range(len(content))):
            file.truncate(length)
            with pytest.raises(CheckpointError):
                open_checkpoint(path, "none")


def test_bytes_beyond_the_end_are_refused(tmp_path: Path) -> None:
    content = (GOLDEN / "every-dtype-v1.asyncmod").read_bytes()
    for surplus in (b"\0", bytes(64), content):
        refused(tmp_path / "a.asyncmod", content + surplus)
    refused(tmp_path / "a.asyncmod", with_trailer(content[: -TRAILER.size] + bytes(64)))


@pytest.mark.parametrize("verify", ["full", "lazy"])
def test_a_thousand_flips_are_found_where_they_are(tmp_path: Path, verify: Any) -> None:
    path = a_file(tmp_path / "a.asyncmod")
    size = path.stat().st_size
    segments = open_checkpoint(path).header.segments
    begin = data_begin(len(header_of(path.read_bytes())))
    random_ = random.Random(7)
    # Half of them in the head, which is small.
    places = [random_.randrange(begin if k % 2 else size) for k in range(1000)]
    with path.open("r+b", buffering=0) as file:
        for place in places:
            file.seek(place)
            (byte,) = file.read(1)
            file.seek(place)
            file.write(bytes([byte ^ 1 << random_.randrange(8)]))
            said = refusal(path, verify)
            for segment in segments:
                if segment.offset <= place - begin < segment.end:
                    assert f"tensor {segment.name!r}" in said
                    (at,) = map(int, re.findall(r"at byte (\d+)", said))
                    assert 0 <= place - at < BLOCK
            file.seek(place)
            file.write(bytes([byte]))
    dict(open_checkpoint(path, verify))


def test_lazily_only_what_is_asked_for_is_compared(tmp_path: Path) -> None:
    path = a_file(tmp_path / "a.asyncmod")
    begin = data_begin(len(header_of(path.read_bytes())))
    with path.open("r+b") as file:
        file.seek(begin + 64 + BLOCK + 50)
        file.write(b"\xaa")
    lazy = open_checkpoint(path, "lazy")
    assert lazy["small"].tolist() == [0, 1, 2, 3, 4]
    for _ in range(2):
        with pytest.raises(CheckpointError, match="block 1 of the tensor 'large'"):
            lazy["large"]
    lazy.close()
    assert open_checkpoint(path, "none")["large"][BLOCK + 50] == 0xAA
    with pytest.raises(CheckpointError, match="block 1 of the tensor 'large'"):
        open_checkpoint(path)


DEEP = b"\x91" * 5000 + b"\x90"
STATE = msgpack.packb("state")
KEY_TWICE = msgpack.packb(CONTENT).replace(
    STATE + b"\x80", STATE + b"\x82" + 2 * b"\xa1k\x01"
)
NO_UTF8 = msgpack.packb(CONTENT).replace(b"\xa1r", b"\xa1\xff")
TWOS = bytes(16 * [2]) + bytes(48)
CRC32_OF_TWOS = zlib.crc32(TWOS[:16]).to_bytes(4, "little")

HOSTILE: dict[str, tuple[Any, bytes]] = {
    "newer version": (CONTENT | {"version": 2}, b""),
    "no version": ({}, b""),
    "version of another type": (CONTENT | {"version": "1"}, b""),
    "another key": (CONTENT | {"more": 1}, b""),
    "a key too few": ({k: v for k, v in CONTENT.items() if k != "run"}, b""),
    "a key twice": (KEY_TWICE, b""),
    "a list": ([1, 2], b""),
    "a number": (7, b""),
    "no msgpack": (b"\xc1", b""),
    "msgpack and more": (msgpack.packb(CONTENT) + b"\0", b""),
    "too deep": (DEEP, b""),
    "extension type": (CONTENT | {"state": {"a": msgpack.ExtType(5, b"")}}, b""),
    "timestamp": (CONTENT | {"state": {"a": msgpack.Timestamp(0)}}, b""),
    "key that is no text": (CONTENT | {"state": {b"a": 1}}, b""),
    "number as a key": (CONTENT | {"state": {1: 1}}, b""),
    "text that is no UTF-8": (NO_UTF8, b""),
    "infinite time": (CONTENT | {"created": float("inf")}, b""),
    "negative step": (CONTENT | {"step": -1}, b""),
    "truth as a step": (CONTENT | {"step": True}, b""),
    "state that is no map": (CONTENT | {"state": [1]}, b""),
    "tensors that are no list": (CONTENT | {"tensors": {}}, b""),
    "a record that is none": (CONTENT | {"tensors": [1]}, b""),
    "a record with more": (CONTENT | {"tensors": [record(more=1)]}, ZEROS),
    "no name": (CONTENT | {"tensors": [record(name="")]}, ZEROS),
    "a name that is no text": (CONTENT | {"tensors": [record(name=b"a")]}, ZEROS),
    "a long name": (CONTENT | {"tensors": [record(name="a" * 5000)]}, ZEROS),
    "a name twice": (CONTENT | {"tensors": [record(), record(offset=64)]}, 2 * ZEROS),
    "object dtype": (CONTENT | {"tensors": [record(dtype="object")]}, ZEROS),
    "dtype in code": (CONTENT | {"tensors": [record(dtype="<f4")]}, ZEROS),
    "dtype that is no text": (CONTENT | {"tensors": [record(dtype=["f4"])]}, ZEROS),
    "a shape that is no list": (CONTENT | {"tensors": [record(shape=4)]}, ZEROS),
    "negative size": (CONTENT | {"tensors": [record(shape=[-1, -4])]}, ZEROS),
    "a size that is no integer": (CONTENT | {"tensors": [record(shape=[4.0])]}, ZEROS),
    "too many axes": (CONTENT | {"tensors": [record(shape=[1] * 32 + [4])]}, ZEROS),
    "overflow": (
        CONTENT | {"tensors": [record(shape=[2**32, 2**32, 2**60], bytes=0)]},
        ZEROS,
    ),
    "empty, but long": (
        CONTENT | {"tensors": [record(shape=[0, 2**62], bytes=0, crc32=b"")]},
        b"",
    ),
    "bytes that do not fit": (CONTENT | {"tensors": [record(bytes=17)]}, ZEROS),
    "no checksum": (CONTENT | {"tensors": [record(crc32=b"")]}, ZEROS),
    "checksums too many": (CONTENT | {"tensors": [record(crc32=bytes(8))]}, ZEROS),
    "wrong checksum": (CONTENT | {"tensors": [record(crc32=bytes(4))]}, ZEROS),
    "an offset in the void": (CONTENT | {"tensors": [record(offset=64)]}, ZEROS),
    "an offset out of range": (CONTENT | {"tensors": [record(offset=2**63)]}, ZEROS),
    "an offset not aligned": (CONTENT | {"tensors": [record(offset=4)]}, ZEROS),
    "negative offset": (CONTENT | {"tensors": [record(offset=-64)]}, ZEROS),
    "overlap": (CONTENT | {"tensors": [record(), record(name="b")]}, 2 * ZEROS),
    "a hole": (
        CONTENT | {"tensors": [record(), record(name="b", offset=128)]},
        3 * ZEROS,
    ),
    "data too short": (CONTENT | {"tensors": [record()]}, b""),
    "data too long": (CONTENT | {"tensors": [record()]}, 2 * ZEROS),
    "something in the zeros": (CONTENT | {"tensors": [record()]}, ZEROS[1:] + b"x"),
    "a truth value of 2": (
        CONTENT | {"tensors": [record(dtype="bool", shape=[16], crc32=CRC32_OF_TWOS)]},
        TWOS,
    ),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_headers_are_refused(tmp_path: Path, case: str) -> None:
    header, data = HOSTILE[case]
    packed = header if isinstance(header, bytes) else msgpack.packb(header)
    said = refused(tmp_path / "a.asyncmod", forge(packed, data))
    assert len(said) < 1000


def test_what_the_table_of_hostile_headers_begins_from_is_accepted(
    tmp_path: Path,
) -> None:
    path = tmp_path / "a.asyncmod"
    path.write_bytes(forge(CONTENT | {"tensors": [record()]}, ZEROS))
    assert open_checkpoint(path)["a"].tolist() == [0, 0, 0, 0]


def test_the_version_is_named(tmp_path: Path) -> None:
    newer = forge(CONTENT | {"version": 2})
    refused(tmp_path / "a.asyncmod", newer, "it is of version 2, .* reads up to 1")


@pytest.mark.parametrize("length", [0, 2**63, 2**64 - 1, 64 << 20])
def test_a_header_longer_than_the_file_is_refused(tmp_path: Path, length: int) -> None:
    content = bytearray(forge(CONTENT))
    content[8:16] = length.to_bytes(8, "little")
    refused(tmp_path / "a.asyncmod", bytes(content), "header")


SMALL_AND_MANY = {
    "empty maps": b"\x80",
    "empty lists": b"\x90",
    "nested lists": b"\x91\x90",
    "pairs": b"\x81\xa1a\xc0",
    "texts": b"\xa2ab",
    "bytes": b"\xc4\x02ab",
    "floats": b"\xcb" + bytes(8),
    "integers": b"\xcd\x7f\xff",
    "nothing": b"\xc0",
    "records": msgpack.packb(record(shape=[0], bytes=0, crc32=b"")),
}


@pytest.mark.parametrize("case", SMALL_AND_MANY)
def test_memory_is_bounded_by_the_file(tmp_path: Path, case: str) -> None:
    path = tmp_path / "a.asyncmod"
    item = SMALL_AND_MANY[case]
    key = "tensors" if case == "records" else "state"
    head = msgpack.packb({k: v for k, v in CONTENT.items() if k != key})
    head = bytes([head[0] + 1]) + head[1:] + msgpack.packb(key)
    if key == "state":
        head += b"\x81\xa1x"
    count = (longest_header(600_000) - len(head) - 5) // len(item)
    packed = head + b"\xdd" + count.to_bytes(4, "big") + item * count
    content = forge(packed)
    path.write_bytes(content)
    del packed
    tracemalloc.start()
    try:
        with contextlib.suppress(CheckpointError):
            open_checkpoint(path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < len(content) + (64 << 20)


@pytest.mark.parametrize("name", GOLDEN_FILES)
@hypothesis.given(seed=st.integers(0, 2**64))
@hypothesis.settings(max_examples=300)
def test_nothing_else_than_checkpoint_error(
    tmp_path_factory: pytest.TempPathFactory, name: str, seed: int
) -> None:
    original = (GOLDEN / name).read_bytes()
    content = mutated(original, random.Random(seed))
    path = tmp_path_factory.getbasetemp() / "mutated.asyncmod"
    path.write_bytes(content)
    load(path, original, content)


@hypothesis.given(st.binary(max_size=300))
def test_any_bytes_as_a_header(
    tmp_path_factory: pytest.TempPathFactory, packed: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.asyncmod"
    refused(path, forge(packed))
