"""Histograms: the examples of MXNet's documentation, and what makes no sense."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import asyncmod as mx
from runtime.errors import OperatorError, ShapeError
from tests.runtime.ops.recorded import run

DATA = np.array([[0.0, 1], [2, 2], [3, 4]], np.float32)


def test_intervals_of_one_width() -> None:
    counts, ends = run("_histogram", DATA, bin_cnt=5, range=(0, 5)).outputs
    assert counts.tolist() == [1, 1, 2, 1, 1]
    assert ends.tolist() == [0, 1, 2, 3, 4, 5]
    assert (counts.dtype, ends.dtype) == (np.int64, np.float32)
    counts, _ = run("_histogram", DATA, bin_cnt=2, range=(1, 3)).outputs
    assert counts.tolist() == [1, 3]  # the end belongs to the last


def test_intervals_by_their_ends() -> None:
    ends = np.array([0, 2.1, 3], np.float32)
    counts, same = run("_histogram", DATA, ends).outputs
    assert counts.tolist() == [4, 1]
    np.testing.assert_array_equal(same, ends)


def test_on_arrays() -> None:
    data = mx.nd.array(DATA)
    counts, ends = mx.nd.histogram(data, bins=4)
    assert counts.tolist() == [1, 1, 2, 2]
    assert ends.tolist() == [0, 1, 2, 3, 4]
    counts, _ = mx.nd.histogram(data, bins=mx.nd.array([0, 2.1, 3]))
    assert counts.tolist() == [4, 1]


def test_symbols_are_written_as_mxnet_does() -> None:
    a, b = mx.sym.Variable("a"), mx.sym.Variable("b")
    symbol = mx.sym.histogram(a, bins=5, range=(0, 5))
    assert symbol.attr_dict() == {"_histogram0": {"bin_cnt": "5", "range": "(0, 5)"}}
    assert mx.sym.histogram(a, b).list_arguments() == ["a", "b"]
    with pytest.raises(mx.errors.ArgumentTypeError, match=r"`bins` \(=10\)"):
        mx.sym.histogram(a)


@pytest.mark.parametrize(
    ("inputs", "attributes", "error", "told"),
    [
        ([DATA], {"bin_cnt": 0, "range": (0, 1)}, OperatorError, r"`bin_cnt` \(=0\)"),
        ([DATA], {"bin_cnt": 2}, OperatorError, r"`range` \(=None\)"),
        ([DATA], {"bin_cnt": 2, "range": (1,)}, OperatorError, "the two ends"),
        ([DATA, DATA[0, :1]], {}, ShapeError, r"two numbers or more.*\(1,\)"),
    ],
)
def test_what_makes_no_sense(
    inputs: list[Any], attributes: dict[str, Any], error: type[Exception], told: str
) -> None:
    with pytest.raises(error, match=told):
        run("_histogram", *inputs, **attributes)
