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


def test_a_failure_leaves_the_file_before(tmp_path: Path) -> None:
    path = tmp_path / "file"
    packed_file.write(path, "before")
    with pytest.raises(TypeError):
        packed_file.write(path, ["after", object()])
    assert msgpack.unpackb(path.read_bytes()) == "before"
    assert list(tmp_path.iterdir()) == [path]
