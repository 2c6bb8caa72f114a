"""MNISTIter over small files in MNIST's format."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from asyncmod import io
from asyncmod.testing import check_iterator

COUNT, HEIGHT, WIDTH = 10, 3, 2
PIXELS = np.arange(COUNT * HEIGHT * WIDTH, dtype=np.uint8).reshape(COUNT, HEIGHT, WIDTH)
LABELS = np.arange(COUNT, dtype=np.uint8)


def write(path: Path, magic: int, array: Any) -> Path:
    header = struct.pack(f">{1 + array.ndim}I", magic, *array.shape)
    path.write_bytes(header + array.tobytes())
    return path


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    return {
        "image": write(tmp_path / "images", 2051, PIXELS),
        "label": write(tmp_path / "labels", 2049, LABELS),
    }


async def labels(iterator: io.MNISTIter) -> list[int]:
    return [int(value) async for batch in iterator for value in batch.label[0]]


@pytest.mark.parametrize("shuffle", [True, False])
async def test_contract(files: dict[str, Path], shuffle: bool) -> None:
    await check_iterator(lambda: io.MNISTIter(**files, batch_size=3, shuffle=shuffle))


@pytest.mark.parametrize("flat", [False, True])
async def test_images_and_labels(files: dict[str, Path], flat: bool) -> None:
    iterator = io.MNISTIter(**files, batch_size=3, shuffle=0, flat=flat)
    shape = (3, 6) if flat else (3, 1, 3, 2)
    assert iterator.provide_data == [("data", shape)]
    assert iterator.provide_label == [("softmax_label", (3,))]
    batches = [batch async for batch in iterator]
    assert [batch.pad for batch in batches] == [0, 0, 0]  # the last row is dropped
    for number, batch in enumerate(batches):
        rows = slice(3 * number, 3 * number + 3)
        expected = (PIXELS[rows] / 256).astype(np.float32).reshape(shape)
        np.testing.assert_array_equal(batch.data[0], expected, strict=False)
        assert batch.data[0].dtype == batch.label[0].dtype == np.float32
        np.testing.assert_array_equal(batch.label[0], LABELS[rows])
        assert batch.index.tolist() == LABELS[rows].tolist()


async def test_the_order_is_drawn_once(files: dict[str, Path]) -> None:
    iterator = io.MNISTIter(**files, batch_size=5)
    first = await labels(iterator)
    assert sorted(first) == LABELS.tolist()
    assert first != LABELS.tolist()
    await iterator.reset()
    assert await labels(iterator) == first
    other = io.MNISTIter(**files, batch_size=5, seed=1)
    assert await labels(other) != first
    async for batch in io.MNISTIter(**files, batch_size=5):
        np.testing.assert_array_equal(
            batch.data[0][:, 0], (PIXELS[batch.index] / 256).astype(np.float32)
        )
        np.testing.assert_array_equal(batch.label[0], batch.index)


async def test_parts_take_every_row_once(files: dict[str, Path]) -> None:
    found = [
        await labels(
            io.MNISTIter(
                **files, batch_size=1, shuffle=0, num_parts="3", part_index=str(part)
            )
        )
        for part in range(3)
    ]
    assert found == [[0, 1, 2], [3, 4, 5], [6, 7, 8, 9]]


async def test_a_state_of_another_seed(files: dict[str, Path]) -> None:
    state = io.MNISTIter(**files, batch_size=2).get_state()
    with pytest.raises(io.DataFileError, match="seed=0, and this iterator has seed=1"):
        io.MNISTIter(**files, batch_size=2, seed=1).set_state(state)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("image", b"", "ends within its header, after 0 bytes"),
        ("image", struct.pack(">4I", 2049, 10, 3, 2), "number 2049, .* images with"),
        ("label", struct.pack(">2I", 2051, 10), "number 2051, .* labels with 2049"),
        ("image", struct.pack(">4I", 2051, 0, 3, 2), r"shape is \(0, 3, 2\)"),
        ("image", struct.pack(">4I", 2051, *[2**32 - 1] * 3), r"needs \d+ bytes; it"),
        ("image", gzip.compress(b"x" * 100), "is compressed: `gunzip` it"),
        ("label", struct.pack(">2I", 2049, 10) + b"x" * 9, "needs 18 bytes; it has 17"),
        ("label", struct.pack(">2I", 2049, 2) + b"xx", "has 2 labels, and .* 10 im"),
    ],
)
def test_files_that_hold_something_else(
    files: dict[str, Path], name: str, content: bytes, message: str
) -> None:
    files[name].write_bytes(content)
    with pytest.raises(io.DataFileError, match=message):
        io.MNISTIter(**files, batch_size=2)


async def test_a_file_cut_short_after_the_first_look(files: dict[str, Path]) -> None:
    iterator = io.MNISTIter(**files, batch_size=2)
    files["image"].write_bytes(files["image"].read_bytes()[:-1])
    with pytest.raises(io.DataFileError, match="has become shorter"):
        await iterator.next()


def test_arguments_that_cannot_be(files: dict[str, Path]) -> None:
    with pytest.raises(io.TooFewRowsError, match=r"leaves 10 images .* needs 128"):
        io.MNISTIter(**files)
    with pytest.raises(FileNotFoundError, match="`image`: there is no file"):
        io.MNISTIter()
    with pytest.raises(io.FileArgumentError, match="`seed`"):
        io.MNISTIter(**files, batch_size=2, seed=-1)
