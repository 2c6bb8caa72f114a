"""Read as if msgpack had written it in one piece; whole, or not there at all."""

from __future__ import annotations

from pathlib import Path

import msgpack
import numpy as np
import pytest

from asyncmod.optimizer import packed_file

CONTENT = {
    "text": "ä",
    "numbers": [1, -1.5, None, True, 2**40],
    "long": list(range(70000)),
    3: {"nested": [[], {}, ""]},
}


def test_reads_as_what_was_written(tmp_path: Path) -> None:
    for count in (0, 1, 70000):
        array = np.arange(count, dtype=np.uint8)
        packed_file.write(tmp_path / "file", {**CONTENT, "array": array.data})
        read = msgpack.unpackb((tmp_path / "file").read_bytes(), strict_map_key=False)
        assert read == {**CONTENT, "array": array.tobytes()}
        assert packed_file.read(tmp_path / "file") == read


def test_reads_all_that_msgpack_writes(tmp_path: Path) -> None:
    path = tmp_path / "file"
    powers = [2**k for k in (0, 4, 5, 7, 8, 15, 16, 31, 32, 63)]
    numbers = [n for p in powers for n in (p - 1, p, -p, 1 - p)]
    sizes = [0, 1, 15, 16, 31, 32, 255, 256, 65535, 65536]
    content = {
        "numbers": [*numbers, 2**64 - 1, 0.5, -0.0, float("inf")],
        "texts": ["ä" * size for size in sizes],
        "binaries": [bytes(size) for size in sizes],
        "lists": [[0] * size for size in sizes],
        "maps": [{str(i): i for i in range(size)} for size in sizes],
        "constants": [None, True, False],
    }
    for single in (False, True):
        path.write_bytes(msgpack.packb(content, use_single_float=single))
        assert packed_file.read(path) == content


@pytest.mark.parametrize(
    ("damaged", "words"),
    [
        (b"", "ends at 0"),
        (msgpack.packb([1, "abc"])[:-1], "in its middle"),
        (b"\xdd\xff\xff\xff\xff\x00", "in its middle"),
        (b"\xc6\xff\xff\xff\xff\x00", "in its middle"),
        (b"\x91" * 100_000, "no msgpack"),
        (b"\x81\x90\x00", "unhashable"),
        (b"\x81\xc4\x01", "in its middle"),
        (b"\xa1\xff", "utf-8"),
        (b"\xc1", "0xc1 at 0"),
        (msgpack.packb(msgpack.ExtType(1, b"x")), "0xd4 at 0"),
        (msgpack.packb(1) * 2, "ends at 1"),
    ],
)
def test_what_is_damaged_is_refused(tmp_path: Path, damaged: bytes, words: str) -> None:
    (tmp_path / "file").write_bytes(damaged)
    with pytest.raises(ValueError, match=words):
        packed_file.read(tmp_path / "file")


def test_a_failure_leaves_the_file_before(tmp_path: Path) -> None:
    path = tmp_path / "file"
    packed_file.write(path, "before")
    with pytest.raises(TypeError):
        packed_file.write(path, ["after", object()])
    assert msgpack.unpackb(path.read_bytes()) == "before"
    assert list(tmp_path.iterdir()) == [path]
