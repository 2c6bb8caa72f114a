"""MXNet's NDArray list file (`.params`, `.nd`): arrays with or without names.

All numbers are little-endian. The file is

    u64 0x112 | u64 0 | u64 arrays | records | u64 names | (u64 length, UTF-8 text)...

and a record, in the present version V2,

    u32 magic | i32 storage | i32 ndim | i64 dims... | i32 device type | i32 device id
    | i32 dtype | values in row-major order

V1 has no storage field, V0 neither that nor a magic (it begins with ndim, its dims
are u32), and V3 is V2 with true scalars. Sparse arrays are read too
(`asyncmod.interop.mxnet_sparse`), and written densely. A file is never trusted: sizes
are compared with what is left of it before anything is allocated.
"""

from __future__ import annotations

import math
import os
import struct
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from io import BufferedReader, BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from asyncmod.interop.mxnet_sparse import AUXILIARIES, read_sparse
from asyncmod.nd import NDArray
from runtime.errors import AsyncmodError

StrPath = str | os.PathLike[str]

LIST_MAGIC = 0x112
V1, V2, V3 = 0xF993FAC8, 0xF993FAC9, 0xF993FACA
DENSE = 0
CPU = 1
MAX_NDIM = 32
BFLOAT16 = 12
DTYPES: dict[int, np.dtype[Any]] = {
    0: np.dtype(np.float32),
    1: np.dtype(np.float64),
    2: np.dtype(np.float16),
    3: np.dtype(np.uint8),
    4: np.dtype(np.int32),
    5: np.dtype(np.int8),
    6: np.dtype(np.int64),
    7: np.dtype(np.bool_),
}
FLAGS: dict[np.dtype[Any], int] = {dtype: flag for flag, dtype in DTYPES.items()}


class InvalidParameterFileError(AsyncmodError, OSError, ValueError):
    """A file is not in MXNet's parameter format, or is damaged."""


def load_params(path: StrPath) -> dict[str, Any]:
    """Read a file of named arrays; the keys keep their `arg:` and `aux:`.

    bfloat16 arrays become float32; an array without a value has the shape (0,). Arrays
    are `mx.nd.NDArray`, row-sparse ones `mx.nd.sparse.RowSparseNDArray`, CSR matrices
    those of scipy.sparse.

    Raises:
        InvalidParameterFileError: the file is damaged or no parameter file, or names
            are missing; with path and offset.
        MissingScipyError: it holds a CSR matrix, and SciPy is not installed.
        OSError: the file cannot be read.
    """
    arrays = load_arrays(path)
    if isinstance(arrays, list):
        if not arrays:
            return {}
        raise InvalidParameterFileError(
            f"Invalid param file {os.fspath(path)}: its {len(arrays)} arrays have no "
            "names; read it by mx.nd.load"
        )
    return arrays


def save_params(path: StrPath, params: Mapping[str, Any]) -> None:
    """Write named arrays as MXNet 1.9 does (V2, dense, on cpu(0)).

    The file appears whole or not at all. A 0-d array is written with the shape (1,).

    Raises:
        ValueError: MXNet has no such dtype.
        OSError: the file cannot be written.
    """
    save_arrays(path, params)


def load_arrays(path: StrPath) -> list[Any] | dict[str, Any]:
    """Read a list of arrays, or a dict if the file has names; see `load_params`."""
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        reader = _Reader(file, os.fspath(path), size)
        if reader.number("Q", "list magic") != LIST_MAGIC:
            raise reader.invalid("it does not begin with MXNet's list magic 0x112", 0)
        reader.number("Q", "reserved word")
        count = reader.count("number of arrays", smallest=4)
        arrays = [_read_array(reader) for _ in range(count)]
        names = reader.names(count)
        reader.expect_end()
    return arrays if names is None else dict(zip(names, arrays, strict=True))


def read_record(record: bytes, path: StrPath) -> Any:
    """An array from its record alone; `path` is for errors.

    Raises:
        InvalidParameterFileError: it is no record.
    """
    reader = _Reader(BytesIO(record), os.fspath(path), len(record))
    array = _read_array(reader)
    reader.expect_end()
    return array


def save_arrays(path: StrPath, arrays: Mapping[str, Any] | Sequence[Any]) -> None:
    """Write a list of arrays, or a dict of them with their names; see `save_params`."""
    named = isinstance(arrays, Mapping)
    values = arrays.values() if isinstance(arrays, Mapping) else arrays
    records = [_prepared(i, value) for i, value in enumerate(values)]
    partial = Path(f"{os.fspath(path)}.{os.getpid()}.partial")
    try:
        with partial.open("wb") as file:
            file.write(struct.pack("<QQQ", LIST_MAGIC, 0, len(records)))
            for array in records:
                _write_array(file, array)
            _write_names(file, arrays if named else ())
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        # The caller knows nothing of the partial file.
        error.filename, error.filename2 = os.fspath(path), None
        raise
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


class _Reader:
    """Reads a file of known size, and never asks for more than is left of it."""

    def __init__(self, file: BufferedReader | BytesIO, path: str, size: int) -> None:
        self._file = file
        self._path = path
        self._left = size

    def invalid(self, reason: str, offset: int | None = None) -> Exception:
        where = self._file.tell() if offset is None else offset
        return InvalidParameterFileError(
            f"Invalid param file {self._path}: at byte {where} {reason}"
        )

    def claim(self, size: int, what: str) -> None:
        """Refuse to read `size` bytes that are not there."""
        if size > self._left:
            raise self.invalid(
                f"the {what} needs {size} bytes, and {self._left} are left: the file "
                "is cut off or damaged"
            )
        self._left -= size

    def take(self, size: int, what: str) -> bytes:
        self.claim(size, what)
        content = self._file.read(size)
        self._expect(len(content), size)
        return content

    def number(self, code: str, what: str) -> int:
        """One number by its `struct` code."""
        content = self.take(struct.calcsize("<" + code), what)
        return int(struct.unpack("<" + code, content)[0])

    def count(self, what: str, smallest: int) -> int:
        """How many things of at least `smallest` bytes follow."""
        count = self.number("Q", what)
        if count * smallest > self._left:
            raise self.invalid(f"the {what} is {count}, too many for this file")
        return count

    def values(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray:
        """An array's values, read straight into its memory."""
        self.claim(math.prod(shape) * dtype.itemsize, f"array of shape {shape}")
        array = np.empty(shape, dtype.newbyteorder("<"))
        if array.size:
            self._expect(self._file.readinto(array.data.cast("B")), array.nbytes)
        return array.astype(dtype, copy=False).view(NDArray)

    def names(self, arrays: int) -> list[str] | None:
        """The names at the end; None if there are none."""
        count = self.count("number of names", smallest=8)
        if count not in (0, arrays):
            raise self.invalid(f"there are {count} names for {arrays} arrays")
        names = []
        for _ in range(count):
            size = self.number("Q", "length of a name")
            try:
                names.append(self.take(size, "name").decode())
            except UnicodeDecodeError as error:
                raise self.invalid(f"a name is not UTF-8 ({error})") from None
        if len(set(names)) != count:
            raise self.invalid("a name stands twice")
        return names or None

    def _expect(self, got: int, size: int) -> None:
        if got != size:
            raise self.invalid("the file became shorter while it was read")

    def expect_end(self) -> None:
        if self._left:
            raise self.invalid(f"there are {self._left} bytes too many")


def _read_array(reader: _Reader) -> Any:
    magic = reader.number("I", "array magic")
    storage = DENSE
    stored_shape: tuple[int, ...] = ()
    if magic in (V2, V3):
        storage = reader.number("i", "storage type")
        if storage not in (DENSE, *AUXILIARIES):
            raise reader.invalid(
                f"the storage type is {storage}; known are 0, 1 (row-sparse), 2 (CSR)"
            )
        if storage != DENSE:
            stored_shape = _read_shape(reader)
    if magic in (V1, V2, V3):
        ndim, code = reader.number("i", "ndim"), "q"
    else:
        ndim, code = magic, "I"
    has_value = ndim >= 0 if magic == V3 else ndim != 0
    if ndim > MAX_NDIM or (ndim < 0 and has_value):
        raise reader.invalid(f"the array would have {ndim} axes: no array begins here")
    if not has_value:
        return np.empty((0,), np.float32).view(NDArray)
    shape = _read_sizes(reader, ndim, code)
    reader.take(8, "device")  # ignored: everything is read into host memory
    flag = reader.number("i", "dtype")
    if storage != DENSE:
        return read_sparse(
            reader, storage, shape, stored_shape, flag, _read_shape, _read_values
        )
    return _read_values(reader, shape, flag)


def _read_shape(reader: _Reader) -> tuple[int, ...]:
    """The number of axes, then their sizes."""
    ndim = reader.number("i", "ndim")
    if not 0 < ndim <= MAX_NDIM:
        raise reader.invalid(f"a part of a sparse array would have {ndim} axes")
    return _read_sizes(reader, ndim, "q")


def _read_sizes(reader: _Reader, ndim: int, code: str) -> tuple[int, ...]:
    shape = tuple(reader.number(code, "shape") for _ in range(ndim))
    # NumPy refuses an empty array, too, if its other axes are too long.
    if min(shape, default=0) < 0 or math.prod(n or 1 for n in shape) >= 2**48:
        raise reader.invalid(f"the array's shape would be {shape}")
    return shape


def _read_values(reader: _Reader, shape: tuple[int, ...], flag: int) -> NDArray:
    if flag == BFLOAT16:
        high = np.asarray(reader.values(shape, np.dtype(np.uint16)), np.uint32)
        return (high << 16).view(np.float32).view(NDArray)
    if flag not in DTYPES:
        raise reader.invalid(f"the dtype number is {flag}; known are 0 to 7 and 12")
    dtype = DTYPES[flag]
    if dtype == np.bool_:
        stored = np.asarray(reader.values(shape, np.dtype(np.uint8)))
        return stored.astype(np.bool_).view(NDArray)
    return reader.values(shape, dtype)


def _prepared(position: int, value: Any) -> np.ndarray[Any, Any]:
    """`value` as it will be written: contiguous, with at least one axis."""
    array = np.atleast_1d(np.ascontiguousarray(value))
    if array.dtype.newbyteorder("=") not in FLAGS:
        known = ", ".join(str(dtype) for dtype in FLAGS)
        raise ValueError(
            f"array {position} has the dtype {array.dtype}, which MXNet's format does "
            f"not have: cast it to one of {known}"
        )
    return array


def _write_array(file: BinaryIO, array: np.ndarray[Any, Any]) -> None:
    flag = FLAGS[array.dtype.newbyteorder("=")]
    file.write(struct.pack("<Iii", V2, DENSE, array.ndim))
    file.write(struct.pack(f"<{array.ndim}q", *array.shape))
    file.write(struct.pack("<iii", CPU, 0, flag))
    if array.size:
        little = array.astype(array.dtype.newbyteorder("<"), copy=False)
        file.write(little.data.cast("B"))


def _write_names(file: BinaryIO, names: Iterable[str]) -> None:
    encoded = [name.encode() for name in names]
    file.write(struct.pack("<Q", len(encoded)))
    for name in encoded:
        file.write(struct.pack("<Q", len(name)) + name)
