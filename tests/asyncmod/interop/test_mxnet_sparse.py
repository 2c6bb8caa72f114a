"""Sparse arrays in parameter files, as MXNet 1.9.1 wrote them."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import asyncmod as mx
from asyncmod.interop import mxnet
from tests.asyncmod.interop.test_mxnet_params import CPU, V2, file_of, load
from tests.golden.arrays import HERE

FILE = HERE / "sparse/arrays.params"
DENSE = np.array([[0, 0], [1, 2], [0, 0], [0, 3]], np.float32)


def test_files_of_mxnet() -> None:
    arrays = mx.nd.load(FILE)
    assert isinstance(arrays, dict)
    assert list(arrays) == ["arg:v", "aux:c", "arg:w", "arg:z", "arg:e"]
    assert arrays["arg:v"].stype == "row_sparse"
    assert arrays["arg:v"].indices.tolist() == [1, 3]
    np.testing.assert_array_equal(arrays["arg:v"], DENSE, strict=True)
    np.testing.assert_array_equal(arrays["aux:c"].toarray(), DENSE, strict=True)
    np.testing.assert_array_equal(arrays["arg:w"], DENSE)
    assert arrays["arg:z"].shape == (3, 2, 2)
    assert not np.asarray(arrays["arg:z"]).any()
    assert arrays["arg:e"].shape == (3, 2)
    assert arrays["arg:e"].nnz == 0


async def test_a_module_takes_them_for_parameters(tmp_path: Path) -> None:
    v = mx.sym.Variable("v", shape=DENSE.shape, stype="row_sparse")
    net = mx.sym.dot(mx.sym.Variable("data"), v)
    net.save(f"{tmp_path}/net-symbol.json")
    sparse_file = tmp_path / "net-0001.params"
    sparse_file.write_bytes(file_of(record(4), names=(b"arg:v",)))
    async with await mx.Module.load(f"{tmp_path}/net", 1, label_names=None) as mod:
        np.testing.assert_array_equal((await mod.get_params())[0]["v"], DENSE)
        await mod.bind([("data", (1, 4))], for_training=False)
        np.testing.assert_array_equal((await mod.get_params())[0]["v"], DENSE)
        wrong = {"v": mx.nd.sparse.zeros("row_sparse", (2**40, 2))}
        with pytest.raises(ValueError, match=r"`v` has shape \(1099511627776, 2\)"):
            await mod.set_params(wrong, {})


def record(rows: int, indices: tuple[int, ...] = (1, 3)) -> bytes:
    """The row-sparse array of DENSE, which has four rows."""
    head = struct.pack("<Iiiqqiqq", V2, 1, 2, 2, 2, 2, rows, 2) + CPU
    kinds = struct.pack("<iiiq", 0, 6, 1, 2)
    return head + kinds + DENSE[[1, 3]].tobytes() + struct.pack("<2q", *indices)


@pytest.mark.parametrize(
    ("rows", "indices"), [(3, (1, 3)), (4, (3, 1)), (4, (1, 1)), (4, (-1, 3))]
)
def test_rows_that_do_not_fit(
    rows: int, indices: tuple[int, ...], tmp_path: Path
) -> None:
    content = file_of(record(rows, indices), names=(b"arg:v",))
    with pytest.raises(mxnet.InvalidParameterFileError, match="rows do not fit"):
        load(tmp_path, content)


def test_a_huge_array_of_two_rows_costs_two_rows(tmp_path: Path) -> None:
    arrays = load(tmp_path, file_of(record(2**40), names=(b"arg:v",)))
    assert arrays["arg:v"].shape == (2**40, 2)
    assert arrays["arg:v"].nbytes == 32


@given(
    cut=st.integers(0, 10_000),
    flips=st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), max_size=3),
)
def test_any_damage_is_an_error_or_other_arrays(
    cut: int, flips: list[tuple[int, int]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    content = bytearray(FILE.read_bytes())
    for position, value in flips:
        content[position % len(content)] = value
    cut = len(content) if cut < 5_000 else cut % len(content)
    try:
        load(tmp_path_factory.getbasetemp(), bytes(content[:cut]))
    except mxnet.InvalidParameterFileError:
        return
    assert cut == len(content)
