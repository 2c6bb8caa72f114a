"""MXNet's parameter files: bytes, old versions, damaged and hostile files."""

from __future__ import annotations

import struct
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncmod import nd
from asyncmod.interop import mxnet
from asyncmod.interop.mxnet_params import DTYPES, V1, V2, V3

NETS = Path(__file__).parents[2] / "golden" / "nets"

# {"arg:w": float32 (1, 3) [1, 2, 3], "aux:m": int64 (1,) [7]}, from MXNet 1.9.1.
WORKED = bytes.fromhex(
    "1201000000000000 0000000000000000 0200000000000000"
    "c9fa93f9 00000000 02000000 0100000000000000 0300000000000000"
    "01000000 00000000 00000000 0000803f 00000040 00004040"
    "c9fa93f9 00000000 01000000 0100000000000000"
    "01000000 00000000 06000000 0700000000000000"
    "0200000000000000"
    "0500000000000000 6172673a77"
    "0500000000000000 6175783a6d"
)
PARAMS = {
    "arg:w": np.array([[1, 2, 3]], np.float32),
    "aux:m": np.array([7], np.int64),
}
CPU = struct.pack("<ii", 1, 0)


def file_of(*records: bytes, names: tuple[bytes, ...] = ()) -> bytes:
    content = struct.pack("<QQQ", 0x112, 0, len(records)) + b"".join(records)
    content += struct.pack("<Q", len(names))
    return content + b"".join(struct.pack("<Q", len(n)) + n for n in names)


def load(tmp_path: Path, content: bytes) -> Any:
    (tmp_path / "x.params").write_bytes(content)
    return mxnet.load_arrays(tmp_path / "x.params")


def test_the_worked_bytes_both_ways(tmp_path: Path) -> None:
    assert len(WORKED) == 150
    path = tmp_path / "worked.params"
    mxnet.save_params(path, PARAMS)
    assert path.read_bytes() == WORKED
    read = mxnet.load_params(path)
    assert list(read) == list(PARAMS)
    for name, array in PARAMS.items():
        np.testing.assert_array_equal(read[name], array)
        assert read[name].dtype == array.dtype
        assert isinstance(read[name], nd.NDArray)


@pytest.mark.parametrize("net", ["mlp", "lenet"])
def test_files_of_mxnet_come_back_byte_by_byte(net: str, tmp_path: Path) -> None:
    path = NETS / f"{net}-0000.params"
    params = mxnet.load_params(path)
    mxnet.save_params(tmp_path / "again.params", params)
    assert (tmp_path / "again.params").read_bytes() == path.read_bytes()
    with np.load(NETS / f"{net}.npz") as arrays:
        shapes = {key[5:]: arrays[key].shape for key in arrays if key[:5] == "grad."}
    weights = {name[4:]: a.shape for name, a in params.items() if name[:4] == "arg:"}
    assert weights
    assert {name: shapes[name] for name in weights} == weights


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=str)
@pytest.mark.parametrize("shape", [(3,), (2, 3, 4), (0, 2)])
def test_every_dtype(dtype: Any, shape: tuple[int, ...], tmp_path: Path) -> None:
    array = (np.arange(np.prod(shape)).reshape(shape) % 3).astype(dtype)
    mxnet.save_params(tmp_path / "x", {"a": array, "b": array.T})
    read = mxnet.load_params(tmp_path / "x")
    np.testing.assert_array_equal(read["a"], array)
    np.testing.assert_array_equal(read["b"], array.T)
    assert read["a"].dtype == dtype


def test_big_endian_and_scalars_are_written_as_mxnet_has_them(tmp_path: Path) -> None:
    values = {"big": np.array([1.5, 2], ">f4"), "scalar": np.float32(3)}
    mxnet.save_params(tmp_path / "x", values)
    read = mxnet.load_params(tmp_path / "x")
    assert read["big"].tolist() == [1.5, 2]
    assert read["scalar"].tolist() == [3]


def test_old_versions_and_other_devices(tmp_path: Path) -> None:
    values = np.array([[1, 2]], np.float32)
    gpu = struct.pack("<iii", 2, 3, 0)
    v0 = struct.pack("<III", 2, 1, 2) + gpu + values.tobytes()
    v1 = struct.pack("<Iiqq", V1, 2, 1, 2) + gpu + values.tobytes()
    v2 = struct.pack("<Iiiqq", V2, 0, 2, 1, 2) + gpu + values.tobytes()
    v3 = struct.pack("<Iii", V3, 0, 0) + gpu + values[0, :1].tobytes()
    read = load(tmp_path, file_of(v0, v1, v2, v3))
    for array in read[:3]:
        np.testing.assert_array_equal(array, values)
    assert read[3].shape == ()
    assert read[3].item() == 1


def test_arrays_without_value(tmp_path: Path) -> None:
    none = [struct.pack("<Iii", V2, 0, 0), struct.pack("<Iii", V3, 0, -1)]
    none += [struct.pack("<Ii", V1, 0), struct.pack("<I", 0)]
    assert [array.shape for array in load(tmp_path, file_of(*none))] == [(0,)] * 4


def test_bfloat16_and_bool(tmp_path: Path) -> None:
    shape = struct.pack("<Iiiq", V2, 0, 1, 2) + CPU
    bfloat = shape + struct.pack("<i", 12) + bytes.fromhex("803f 00c0")
    boolean = shape + struct.pack("<i", 7) + b"\x02\x00"
    read = load(tmp_path, file_of(bfloat, boolean))
    assert read[0].dtype == np.float32
    assert read[0].tolist() == [1.0, -2.0]
    assert read[1].tolist() == [True, False]


def test_lists_without_names(tmp_path: Path) -> None:
    path = tmp_path / "list.nd"
    nd.save(path, [nd.ones((2,)), nd.zeros((1, 3))])
    read = nd.load(path)
    assert isinstance(read, list)
    assert [array.shape for array in read] == [(2,), (1, 3)]
    with pytest.raises(mxnet.InvalidParameterFileError, match="have no names"):
        mxnet.load_params(path)
    nd.save(path, nd.ones((4,)))
    assert len(nd.load(path)) == 1
    nd.save(path, {})
    assert mxnet.load_params(path) == {}


HEAD = struct.pack("<Iiiq", V2, 0, 1, 2) + CPU
DAMAGED = {
    "empty": b"",
    "text": b"hello, this is no parameter file",
    "cut off": WORKED[:-1],
    "bytes too many": WORKED + b"\x00",
    "too many arrays": struct.pack("<QQQ", 0x112, 0, 2**62),
    "too many names": file_of()[:-8] + struct.pack("<Q", 2**62),
    "names do not match": file_of(names=(b"a",)),
    "long name": file_of(HEAD + struct.pack("<i", 0) + bytes(8))[:-8]
    + struct.pack("<QQ", 1, 2**63),
    "name twice": file_of(*[struct.pack("<Iii", V2, 0, 0)] * 2, names=(b"a", b"a")),
    "name not UTF-8": file_of(struct.pack("<Iii", V2, 0, 0), names=(b"\xff",)),
    "huge shape": file_of(
        struct.pack("<Iiiqq", V2, 0, 2, 2**40, 2**40) + CPU + bytes(4)
    ),
    "overflowing shape": file_of(
        struct.pack("<Iiiqqq", V2, 0, 3, 2**47, 2**47, 0) + CPU + bytes(4)
    ),
    "negative size": file_of(struct.pack("<Iiiq", V2, 0, 1, -1) + CPU + bytes(4)),
    "negative ndim": file_of(struct.pack("<Iii", V2, 0, -5)),
    "many axes": file_of(struct.pack("<Iii", V2, 0, 1000) + bytes(8000)),
    "unknown magic": file_of(struct.pack("<I", 0xDEADBEEF) + bytes(64)),
    "unknown dtype": file_of(HEAD + struct.pack("<i", 99) + bytes(64)),
    "unknown storage": file_of(struct.pack("<Iiiq", V2, 3, 1, 2) + bytes(64)),
}


@pytest.mark.parametrize("kind", DAMAGED)
def test_damaged_files(kind: str, tmp_path: Path) -> None:
    for family in (OSError, ValueError):
        with pytest.raises(family, match=r"Invalid param file .*x\.params"):
            load(tmp_path, DAMAGED[kind])


@given(
    cut=st.integers(0, len(WORKED)),
    flips=st.lists(st.tuples(st.integers(0, len(WORKED) - 1), st.integers(0, 255))),
)
def test_any_damage_is_an_error_or_other_arrays(
    cut: int, flips: list[tuple[int, int]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    content = bytearray(WORKED)
    for position, value in flips:
        content[position] = value
    try:
        arrays = load(tmp_path_factory.getbasetemp(), bytes(content[:cut]))
    except mxnet.InvalidParameterFileError:
        return
    assert cut == len(WORKED)
    assert len(arrays) == 2 or not arrays


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("cut off", "byte 145 the name needs 5 bytes, and 4 are left"),
        ("bytes too many", "1 bytes too many"),
        ("too many arrays", "number of arrays is 4611686018427387904, too many"),
        ("too many names", "number of names is 4611686018427387904, too many"),
        ("names do not match", "1 names for 0 arrays"),
        ("huge shape", "shape would be"),
        ("unknown dtype", "dtype number is 99"),
        ("unknown storage", "storage type is 3"),
    ],
)
def test_what_is_wrong_is_said(kind: str, reason: str, tmp_path: Path) -> None:
    with pytest.raises(mxnet.InvalidParameterFileError, match=reason):
        load(tmp_path, DAMAGED[kind])


def test_a_hostile_file_costs_no_memory(tmp_path: Path) -> None:
    tracemalloc.start()
    try:
        for content in DAMAGED.values():
            with pytest.raises(OSError, match="Invalid param file"):
                load(tmp_path, content)
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


def test_a_failed_save_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "x.params"
    mxnet.save_params(path, PARAMS)
    with pytest.raises(ValueError, match="complex64"):
        mxnet.save_params(path, {**PARAMS, "c": np.zeros(2, np.complex64)})
    with pytest.raises(AttributeError):
        mxnet.save_params(path, {**PARAMS, 3: np.zeros(2)})  # type: ignore[dict-item]
    assert path.read_bytes() == WORKED
    assert [file.name for file in tmp_path.iterdir()] == ["x.params"]


def test_a_missing_folder_is_told_by_the_path_that_was_given(tmp_path: Path) -> None:
    path = tmp_path / "nowhere" / "net.params"
    with pytest.raises(FileNotFoundError) as caught:
        mxnet.save_params(path, {"w": np.zeros(3, np.float32)})
    assert caught.value.filename == str(path)
    assert not list(tmp_path.iterdir())


def test_a_missing_file_is_the_system_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        mxnet.load_params(tmp_path / "absent")
