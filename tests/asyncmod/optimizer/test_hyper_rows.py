"""`hyper_rows` is `hyper` of each index, whatever changes between two steps."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import asyncmod as mx

CHANGES = {
    "nothing": lambda o: None,
    "learning rate": lambda o: o.set_learning_rate(0.5),
    "momentum": lambda o: setattr(o, "momentum", 0.1),
    "decay": lambda o: setattr(o, "wd", 0.3),
    "clip": lambda o: setattr(o, "clip_gradient", 2.0),
    "rescale": lambda o: setattr(o, "rescale_grad", 7.0),
    "multipliers": lambda o: o.set_lr_mult({"a_weight": 3.0}),
    "multipliers in place": lambda o: o.wd_mult.update({"a_weight": 5.0}),
    "names in place": lambda o: o.idx2name.update({0: "c_bias"}),
}


def optimizer(**more: object) -> mx.optimizer.SGD:
    return mx.optimizer.SGD(
        learning_rate=0.1,
        momentum=0.9,
        wd=0.01,
        param_idx2name={0: "a_weight", 1: "b_bias"},
        **more,
    )


@pytest.mark.parametrize(
    ("change", "scheduled"),
    [
        (change, scheduled)
        for change in CHANGES
        for scheduled in (False, True)
        # A scheduler owns the learning rate.
        if not (scheduled and change == "learning rate")
    ],
)
def test_rows_follow_every_change(change: str, scheduled: bool) -> None:
    pair = []
    for _ in range(2):
        more = {}
        if scheduled:
            more["lr_scheduler"] = mx.lr_scheduler.FactorScheduler(2, 0.5)
        pair.append(optimizer(**more))
    by_rows, by_index = pair
    for step in range(6):
        if step == 3:
            for one in pair:
                CHANGES[change](one)
        rows = by_rows.hyper_rows((0, 1))
        expected = np.array([by_index.hyper(i) for i in (0, 1)])
        np.testing.assert_array_equal(rows, expected)
        assert by_rows.num_update == by_index.num_update == step + 1


def test_nadam_counts_the_others_in() -> None:
    """Its product is over all parameters, one row's count after the other's."""

    def nadam() -> mx.optimizer.Nadam:
        made = mx.optimizer.Nadam(begin_num_update=3)
        made.hyper("behind")
        return made

    by_rows, by_index = nadam(), nadam()
    for _ in range(4):
        rows = by_rows.hyper_rows((0, 1, 2))
        expected = np.array([by_index.hyper(i) for i in (0, 1, 2)])
        np.testing.assert_array_equal(rows, expected)
        assert (np.diff(rows[:, 9]) < 0).all()


@pytest.mark.parametrize("name", ["nadam", "adam", "sgd", "lars"])
def test_the_numbers_of_many_parameters_are_made_in_one_go(name: str) -> None:
    """They are gone through once for all rows, not for each."""
    calls = 0

    class Counts(dict[int, int]):
        def values(self) -> Any:
            nonlocal calls
            calls += 1
            return super().values()

    made = mx.optimizer.create(name)
    made._index_update_count = Counts()
    made.hyper_rows(tuple(range(500)))
    assert calls <= 1


def test_a_subclass_with_its_own_numbers_is_asked() -> None:
    class Halved(mx.optimizer.SGD):
        def hyper(self, index: int | str) -> tuple[float, ...]:
            lr, *others = super().hyper(index)
            return (lr / 2, *others)

    rows = Halved(learning_rate=1.0).hyper_rows((0,))
    assert rows[0, 0] == 0.5
