"""Writing and reading checkpoint files."""

from __future__ import annotations

import gc
import mmap
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from asyncmod.checkpoint import CheckpointError, open_checkpoint, write_checkpoint
from asyncmod.checkpoint.layout import BLOCK
from tests.asyncmod.checkpoint.samples import (
    GOLDEN,
    GOLDEN_FILES,
    HEADER,
    assert_equal,
    every_dtype,
)


@pytest.mark.parametrize("verify", ["full", "lazy", "none"])
def test_what_is_written_is_read(tmp_path: Path, verify: str) -> None:
    path = tmp_path / "a.asyncmod"
    arrays = every_dtype()
    write_checkpoint(path, HEADER, arrays)
    assert_equal(open_checkpoint(path, verify), HEADER, arrays)  # type: ignore[arg-type]
    assert os.listdir(tmp_path) == ["a.asyncmod"]


@pytest.mark.parametrize("name", GOLDEN_FILES)
def test_version_1_is_read_and_written(tmp_path: Path, name: str) -> None:
    header, arrays = GOLDEN_FILES[name]
    assert_equal(open_checkpoint(GOLDEN / name), header, arrays)
    write_checkpoint(tmp_path / name, header, arrays)
    assert (tmp_path / name).read_bytes() == (GOLDEN / name).read_bytes()


def test_arrays_of_any_order_are_written_by_rows(tmp_path: Path) -> None:
    array = np.arange(24.0).reshape(2, 3, 4)
    arrays = {
        "strided": array[:, ::2],
        "transposed": array.T,
        "big-endian": array.astype(">f8"),
    }
    path = tmp_path / "a.asyncmod"
    write_checkpoint(path, HEADER, arrays)
    file = open_checkpoint(path)
    for name, expected in arrays.items():
        assert np.array_equal(file[name], expected)
        assert file[name].flags.c_contiguous


def test_numbers_of_numpy_are_numbers(tmp_path: Path) -> None:
    path = tmp_path / "a.asyncmod"
    state = {"a": np.int64(5), "b": [np.float32(0.5), np.bool_(True)]}
    write_checkpoint(path, replace(HEADER, state=state), {})
    assert open_checkpoint(path).header.state == {"a": 5, "b": [0.5, True]}


def test_segments_are_aligned_and_larger_ones_have_several_checksums(
    tmp_path: Path,
) -> None:
    path = tmp_path / "a.asyncmod"
    large = np.arange(2 * BLOCK + 8, dtype=np.uint8)
    write_checkpoint(path, HEADER, {"odd": np.zeros(5, np.int8), "large": large})
    file = open_checkpoint(path)
    odd, last = file.header.segments
    assert (odd.offset, last.offset) == (0, 64)
    assert len(odd.checksums) == 4
    assert len(last.checksums) == 12
    assert file["large"].ctypes.data % 64 == 0
    assert np.array_equal(file["large"], large)


def test_arrays_are_views_of_the_map_that_outlive_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.asyncmod"
    write_checkpoint(path, HEADER, {"a": np.arange(4)})
    file = open_checkpoint(path)
    array = file["a"]
    assert isinstance(array.base, mmap.mmap)
    with pytest.raises(ValueError, match="read-only"):
        array[0] = 1
    del file
    gc.collect()
    write_checkpoint(path, HEADER, {"a": np.zeros(4)})
    path.unlink()
    assert array.tolist() == [0, 1, 2, 3]


def test_an_older_file_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "a.asyncmod"
    write_checkpoint(path, HEADER, {"a": np.arange(4)})
    write_checkpoint(path, replace(HEADER, step=9), {})
    assert open_checkpoint(path).header.step == 9


def test_verify_is_checked(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="`verify` must be"):
        open_checkpoint(tmp_path / "a.asyncmod", "some")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("state", "arrays", "message"),
    [
        ({"a": object()}, {}, "cannot be saved"),
        ({"a": np.zeros(2)}, {}, "cannot be saved"),
        ({1: 2}, {}, "cannot be saved"),
        ({"a": 2**64}, {}, "cannot be saved"),
        ({"a": list(range(2**20))}, {}, "put long lists"),
        ({}, {"a": np.array(["x"])}, "has the dtype"),
        ({}, {"": np.zeros(1)}, "has no name"),
        ({}, {"x" * 5000: np.zeros(1)}, "has no name"),
    ],
)
def test_what_the_format_does_not_have_is_refused(
    tmp_path: Path, state: dict, arrays: dict, message: str
) -> None:
    path = tmp_path / "a.asyncmod"
    write_checkpoint(path, HEADER, {})
    with pytest.raises(CheckpointError, match=message):
        write_checkpoint(path, replace(HEADER, state=state), arrays)
    assert_equal(open_checkpoint(path), HEADER, {})
    assert os.listdir(tmp_path) == ["a.asyncmod"]


@pytest.mark.parametrize("kind", ["missing", "folder", "pipe", "empty", "device"])
def test_what_is_no_file_is_refused(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a.asyncmod"
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "empty":
        path.touch()
    elif kind == "device":
        path.symlink_to("/dev/zero")
    with pytest.raises(CheckpointError, match=r"a\.asyncmod"):
        open_checkpoint(path)


def test_the_file_is_abandoned_between_blocks(tmp_path: Path) -> None:
    path = tmp_path / "a.asyncmod"
    write_checkpoint(path, HEADER, {})
    calls = iter(range(100))

    def abandon() -> None:
        if next(calls) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_checkpoint(
            path, HEADER, {"a": np.zeros(3 * BLOCK, np.int8)}, between_blocks=abandon
        )
    assert next(calls) == 3
    assert_equal(open_checkpoint(path), HEADER, {})
    assert os.listdir(tmp_path) == ["a.asyncmod"]
