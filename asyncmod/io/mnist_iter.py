"""MNISTIter: batches from the idx files of MNIST and its like."""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import trio

from asyncmod.io.batch import DataBatch, DataDesc
from asyncmod.io.batch_cursor import BatchCursor, TooFewRowsError
from asyncmod.io.file_arguments import (
    FilePath,
    Shape,
    as_file,
    as_flag,
    as_integer,
    as_part,
    part_of,
)
from asyncmod.io.iterator import DataIter, State
from asyncmod.io.table_reader import DataFileError, Table, TableReader, Where, rows_of
from asyncmod.nd import NDArray

Array = np.ndarray[Any, np.dtype[Any]]


class MNISTIter(DataIter):
    """Batches of gray images, value / 256 as float32, with their labels.

    The files' headers are read here; the rest once, beside the event loop, when the
    first batch is asked for. Rows that do not fill a batch are dropped. Arguments may
    be strings, as in MXNet.

    Args:
        image: File of images, idx format with magic 2051, not compressed.
        label: File of labels, idx format with magic 2049.
        batch_size: Rows per batch.
        shuffle: Put the rows in random order once; all epochs have the same.
        flat: Batches of shape (batch_size, pixels) in place of
            (batch_size, 1, height, width).
        seed: Seed of the order, which is not MXNet's.
        silent: Accepted for MXNet's sake; nothing is printed.
        num_parts: Into how many parts the rows are cut, for several workers.
        part_index: Which part is read, from 0.
        data_name: Name of the data.
        label_name: Name of the labels.
        prefetch_buffer: Accepted for MXNet's sake; see PrefetchingIter.
        ctx: Accepted for MXNet's sake.

    Raises:
        FileArgumentError: an argument has a value that cannot be.
        FileNotFoundError: a file is not there.
        DataFileError: a file is not of its format, or shorter than it says.
        TooFewRowsError: the part has not one whole batch.
    """

    def __init__(
        self,
        *,
        image: FilePath = "./train-images-idx3-ubyte",
        label: FilePath = "./train-labels-idx1-ubyte",
        batch_size: int | str = 128,
        shuffle: bool | int | str = True,
        flat: bool | int | str = False,
        seed: int | str = 0,
        silent: bool | int | str = False,
        num_parts: int | str = 1,
        part_index: int | str = 0,
        data_name: str = "data",
        label_name: str = "softmax_label",
        prefetch_buffer: int = 4,
        ctx: Any = "gpu",
    ) -> None:
        super().__init__(as_integer("batch_size", batch_size, 1))
        self._images = _IdxFile.open(as_file("image", image), 2051, 3)
        self._labels = _IdxFile.open(as_file("label", label), 2049, 1)
        count, height, width = self._images.shape
        if self._labels.shape != (count,):
            raise DataFileError(
                f"{self._labels.path} has {self._labels.shape[0]} labels, and "
                f"{self._images.path} has {count} images"
            )
        self._rows = part_of(count, *as_part(num_parts, part_index))
        if self._rows.stop - self._rows.start < self.batch_size:
            raise TooFewRowsError(
                f"{self._images.path} leaves {self._rows.stop - self._rows.start} "
                f"images for this part, and one batch needs {self.batch_size}"
            )
        is_flat = as_flag("flat", flat)
        self._row = (height * width,) if is_flat else (1, height, width)
        self._shuffle = as_flag("shuffle", shuffle)
        self._seed = as_integer("seed", seed, 0)
        as_flag("silent", silent)
        batch = (self.batch_size,)
        self.provide_data = [DataDesc(data_name, batch + self._row)]
        self.provide_label = [DataDesc(label_name, batch)]
        self._reader = TableReader(self._load, BatchCursor(self.batch_size, "drop"))

    async def next(self) -> DataBatch:
        """The next batch; StopAsyncIteration at the end. Cancelling loses nothing.

        Raises:
            DataFileError: a file has become shorter.
        """
        return await self._reader.next()

    async def reset(self) -> None:
        """Begin the next epoch."""
        await self._reader.reset()

    def get_state(self) -> State:
        """The position and the seed, as plain data."""
        return {**self._reader.get_state(), "seed": self._seed}

    def set_state(self, state: State) -> None:
        """Continue from `state`.

        Raises:
            DataFileError: the state was saved with another `seed`.
        """
        if state["seed"] != self._seed:
            raise DataFileError(
                f"the state was saved with seed={state['seed']}, and this iterator has "
                f"seed={self._seed}, which gives another order"
            )
        self._reader.set_state(state)

    async def _load(self) -> Table:
        return await trio.to_thread.run_sync(self._make_table)

    def _make_table(self) -> Table:
        images, labels = self._images.read(), self._labels.read()
        index = np.arange(*self._rows.indices(len(images)))
        if self._shuffle:
            index = np.random.Generator(np.random.Philox(self._seed)).permutation(index)

        def data(where: Where) -> NDArray:
            pixels = images[index[where]].reshape(-1, *self._row)
            scaled = np.multiply(pixels, np.float32(1 / 256), dtype=np.float32)
            return scaled.view(NDArray)

        label = rows_of(labels[index].astype(np.float32))
        return Table(index, data, label, 4 * math.prod(self._row))


@dataclass(frozen=True)
class _IdxFile:
    """An idx file of bytes: big-endian magic and sizes, then the values."""

    path: Path
    shape: Shape

    @classmethod
    def open(cls, path: Path, magic: int, axes: int) -> _IdxFile:
        """Read the header, and check it against the length of the file."""
        wanted = 4 + 4 * axes
        with path.open("rb") as file:
            header = file.read(wanted)
            size = file.seek(0, 2)
        if header[:2] == b"\x1f\x8b":
            raise DataFileError(f"{path} is compressed: `gunzip` it first")
        if len(header) < wanted:
            raise DataFileError(f"{path} ends within its header, after {size} bytes")
        found, *sizes = struct.unpack(f">{1 + axes}I", header)
        if found != magic:
            raise DataFileError(
                f"{path} begins with the number {found}, and an idx file of "
                f"{'images' if axes == 3 else 'labels'} with {magic}"
            )
        if 0 in sizes:
            raise DataFileError(f"{path} says that its shape is {tuple(sizes)}")
        if size < wanted + math.prod(sizes):
            raise DataFileError(
                f"{path} says that its shape is {tuple(sizes)}, which needs "
                f"{wanted + math.prod(sizes)} bytes; it has {size}"
            )
        return cls(path, tuple(sizes))

    def read(self) -> Array:
        """The values, uint8, of the header's shape."""
        count = math.prod(self.shape)
        values = np.fromfile(self.path, np.uint8, count, offset=4 + 4 * len(self.shape))
        if len(values) < count:
            raise DataFileError(f"{self.path} has become shorter than {count} values")
        return values.reshape(self.shape)
