"""`mx.random`: the seeded generator."""

from __future__ import annotations

from typing import Any

import msgpack
import numpy as np
import pytest

from asyncmod import nd, random


def draws() -> list[Any]:
    return [
        random.uniform(-1, 1, (3,)).tolist(),
        random.normal(2, 3, (2, 2)).tolist(),
        random.randint(0, 9, (4,)).tolist(),
        random.draw_seed(),
        random.shuffle(np.arange(5)).tolist(),
    ]


def test_the_same_seed_gives_the_same_numbers() -> None:
    random.seed(3)
    first = draws()
    assert draws() != first
    random.seed(3)
    assert draws() == first
    random.seed(4)
    assert draws() != first


def test_the_state_is_plain_and_continues_exactly() -> None:
    random.seed(3)
    random.generator().integers(9, dtype=np.int32)  # leaves half a word over
    state = msgpack.unpackb(msgpack.packb(random.get_state()))
    first = [random.generator().integers(9, dtype=np.int32), *draws()]
    random.set_state(state)
    assert [random.generator().integers(9, dtype=np.int32), *draws()] == first


def test_ranges_and_dtypes() -> None:
    random.seed(3)
    numbers = random.uniform(2, 3, (1000,))
    assert numbers.dtype == np.float32
    assert isinstance(numbers, nd.NDArray)
    assert 2 <= numbers.min() < 2.05 < 2.95 < numbers.max() <= 3
    assert set(random.randint(0, 3, (100,)).tolist()) == {0, 1, 2}
    assert 0 <= random.draw_seed() < 2**63


def test_distributions() -> None:
    random.seed(3)
    count = 20_000
    for drawn, mean, variance in (
        (random.exponential(3.0, count), 3, 9),
        (random.gamma(2.0, 3.0, count), 6, 18),
        (random.poisson(4.0, count), 4, 4),
        (random.randn(count // 2, 2, loc=1.0, scale=2.0), 1, 4),
    ):
        assert drawn.dtype == np.float32
        assert drawn.mean() == pytest.approx(mean, rel=0.05)
        assert drawn.var() == pytest.approx(variance, rel=0.1)
    assert random.randn().shape == random.gamma().shape == (1,)


def test_parameters_in_arrays() -> None:
    """`shape` numbers for each element, as in MXNet."""
    random.seed(3)
    low, high = nd.array([0, 10]), nd.array([1, 20])
    numbers = random.uniform(low, high, shape=(50, 2))
    assert numbers.shape == (2, 50, 2)
    assert numbers[0].max() < 1 < 10 <= numbers[1].min() <= numbers[1].max() < 20
    assert numbers[1].max() > 15
    assert random.uniform(low, high).shape == (2,)
    assert random.normal(low, 1.0, shape=3).shape == (2, 3)
    out = nd.zeros((2, 4))
    assert (random.poisson(nd.array([0.0, 900.0]), out=out)[1] > 100).all()
    assert (out[0] == 0).all()
    assert (out[1] > 100).all()
    alpha = nd.array([0, 1])
    numbers = random.generalized_negative_binomial(nd.array([4, 4]), alpha, 20_000)
    for found, variance in zip(numbers, (4, 20), strict=True):
        assert found.mean() == pytest.approx(4, rel=0.05)
        assert found.var() == pytest.approx(variance, rel=0.1)
    with pytest.raises(ValueError, match="shape"):
        random.uniform(low, nd.zeros(3))


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_no_number_is_rounded_up_to_the_end(dtype: str) -> None:
    random.seed(3)
    numbers = random.uniform(1, 1 + np.finfo(dtype).eps, (2000,), dtype)
    assert (numbers == 1).all()
    numbers = random.uniform(nd.array([1, 2]), nd.array([1, 3]), (2000,), dtype)
    assert (numbers[0] == 1).all()
    assert 2 <= numbers[1].min() < numbers[1].max() < 3


def test_old_names() -> None:
    """`mx.nd.random_exponential` takes the rate, `mx.random.exponential` the mean."""
    random.seed(3)
    assert nd.random_exponential(lam=4.0, shape=9999).mean() < 0.3
    assert random.exponential(4.0, shape=9999).mean() > 3


@pytest.mark.parametrize("seed", [-1, 1.5, "one", None])
def test_what_is_no_seed(seed: Any) -> None:
    with pytest.raises(ValueError, match="`seed_state`"):
        random.seed(seed)
