"""Initializers beyond the golden cases: dtypes, refusals, Load, repeatability."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import structlog

from asyncmod import initializer, random
from asyncmod.initializer import InitDesc
from asyncmod.interop import mxnet


def filled(init: Any, name: str, shape: Any, dtype: Any = np.float32) -> Any:
    arr = np.full(shape, 99, dtype)
    init(InitDesc(name), arr)
    return arr


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize(
    "make", [initializer.Uniform, initializer.Normal, initializer.Xavier]
)
def test_dtypes_and_seeds(make: Any, dtype: str) -> None:
    random.seed(1)
    first = filled(make(), "w_weight", (20, 30), dtype)
    second = filled(make(), "w_weight", (20, 30), dtype)
    random.seed(1)
    np.testing.assert_array_equal(filled(make(), "w_weight", (20, 30), dtype), first)
    assert (first != second).mean() > 0.9
    assert 0 < abs(first.astype(np.float64)).max() < 1


def test_an_array_that_is_a_view() -> None:
    parent = np.zeros((6, 8), np.float32)
    initializer.Uniform(1)(InitDesc("w_weight"), parent[:, ::2])
    assert (parent[:, ::2] != 0).all()
    assert (parent[:, 1::2] == 0).all()


def test_constants() -> None:
    values = np.arange(6.0).reshape(2, 3)
    init = initializer.Constant(values)
    np.testing.assert_array_equal(filled(init, "w_weight", (2, 3)), values)
    again = initializer.create(init.dumps())
    np.testing.assert_array_equal(filled(again, "w_weight", (2, 3)), values)


def test_create() -> None:
    given = initializer.One()
    assert initializer.create(given) is given
    assert initializer.create("zeros").dumps() == '["zero", {}]'
    assert (
        initializer.create("normal", sigma=2.0).dumps() == '["normal", {"sigma": 2.0}]'
    )
    for unknown in ("nothing", '["nothing", {}]', '["zero", {"a": 1}]', "[broken"):
        for family in (ValueError, AssertionError):
            with pytest.raises(family, match="cannot make an initializer"):
                initializer.create(unknown)


def test_an_initializer_of_the_users() -> None:
    @initializer.alias("mine_too")
    @initializer.register
    class Mine(initializer.Initializer):
        def _init_weight(self, name: str, arr: Any) -> None:
            arr[...] = 5

        def _init_bias(self, name: str, arr: Any) -> None:
            arr[...] = 6

    assert isinstance(initializer.create("Mine"), Mine)
    assert isinstance(Mine(), Mine)
    init = initializer.create("mine_too")
    assert filled(init, "w_weight", 2).tolist() == [5, 5]
    assert filled(init, "w_bias", 2).tolist() == [6, 6]
    desc = InitDesc("any", {"__init__": init.dumps()})
    arr = np.zeros(1)
    initializer.Zero()(desc, arr)
    assert arr[0] == 5


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: initializer.Xavier(rnd_type="cauchy"), "`rnd_type`"),
        (lambda: initializer.Xavier(factor_type="all"), "`factor_type`"),
        (lambda: initializer.Orthogonal(rand_type="cauchy"), "`rand_type`"),
        (lambda: initializer.Mixed([".*"], []), "1 patterns and 0 initializers"),
    ],
)
def test_refused_arguments(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_shapes_that_do_not_suit() -> None:
    with pytest.raises(ValueError, match="vector w_weight"):
        filled(initializer.Xavier(), "w_weight", 3)
    with pytest.raises(ValueError, match="2 axes"):
        filled(initializer.Bilinear(), "w_weight", 3)
    with pytest.raises(ValueError, match="did not match any pattern"):
        filled(initializer.Mixed(["a"], [initializer.One()]), "b", 3)
    with pytest.raises(NotImplementedError, match="_init_weight"):
        filled(initializer.Initializer(), "w_weight", 3)


def test_load(tmp_path: Path) -> None:
    path = str(tmp_path / "x.params")
    mxnet.save_params(path, {"arg:w": np.full(2, 7.0), "aux:m": np.full(1, 8.0)})
    with structlog.testing.capture_logs() as logs:
        load = initializer.Load(path, initializer.One(), verbose=True)
        assert filled(load, "w", 2).tolist() == [7, 7]
        assert filled(load, "m", 1).tolist() == [8]
        assert filled(load, "b_weight", 1).tolist() == [1]
    assert [line["event"] for line in logs] == [
        "Initialized w by loading",
        "Initialized m by loading",
        "Initialized b_weight by default",
    ]
    with pytest.raises(AssertionError, match=r"target \(3,\) vs loaded \(2,\)"):
        filled(load, "w", 3)
    with pytest.raises(AssertionError, match="Not found"):
        filled(initializer.Load({"w": np.zeros(1)}), "b", 1)
