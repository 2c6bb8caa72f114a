"""Updates by row-sparse gradients, as recorded from MXNet 1.9.1.

MXNet's test_sparse_sgd, test_std_sparse_sgd and test_adam, and the other optimizers
that have sparse kernels, or none.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

import asyncmod as mx
from asyncmod.nd import sparse
from tests.golden.arrays import HERE, arrays

CASES: dict[str, Any] = json.loads((HERE / "sparse/updates.json").read_text())


def gradients(recorded: dict[str, Any]) -> list[sparse.RowSparseNDArray]:
    return [
        sparse.row_sparse_array(
            (recorded[f"values.{k}"], recorded[f"indices.{k}"]), shape=(7, 3)
        )
        for k in range(5)
    ]


@pytest.mark.parametrize("name", CASES)
def test_five_updates(name: str) -> None:
    recorded, case = arrays("sparse/updates.npz"), CASES[name]
    optimizer = mx.optimizer.create(case["optimizer"], **case["settings"])
    updater = mx.optimizer.get_updater(optimizer)
    weight = recorded["weight"].copy()
    for gradient in gradients(recorded):
        updater(0, gradient, weight)
    np.testing.assert_allclose(weight, recorded[f"after.{name}"], rtol=2e-5, atol=1e-5)


def test_lazily_other_rows_are_left_alone() -> None:
    gradient = sparse.row_sparse_array((np.ones((1, 3), np.float32), [2]), (7, 3))
    for lazy in (True, False):
        optimizer = mx.optimizer.SGD(momentum=0.9, wd=0.1, lazy_update=lazy)
        weight = np.ones((7, 3), np.float32)
        state = optimizer.create_state(0, weight)
        optimizer.update(0, weight, gradient, state)
        changed = np.flatnonzero((weight != 1).any(axis=1)).tolist()
        assert changed == ([2] if lazy else list(range(7)))
        assert np.flatnonzero(state.any(axis=1)).tolist() == changed


def test_a_failed_update_changes_nothing() -> None:
    optimizer = mx.optimizer.SGD()
    weight = np.ones((7, 3), np.float32)
    wrong = sparse.row_sparse_array((np.ones((1, 2), np.float32), [2]), (7, 2))
    with pytest.raises(ValueError, match="broadcast"):
        optimizer.update(0, weight, wrong, None)
    assert (weight == 1).all()
