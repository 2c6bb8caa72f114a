"""Dropout's mask: its rate, its axes, and that the backward sees the same one."""

from __future__ import annotations

import numpy as np
import pytest

from runtime.errors import OperatorError
from runtime.graph.ir import Entry, Graph, Node
from runtime.graph.registry import Array
from tests.runtime.ops.interpreter import Pass, backward, forward, node

ONES = np.ones((200, 50, 4), np.float32)


def run(data: Array, is_train: bool = True, seed: int = 0, **attributes: str) -> Pass:
    dropout = node("op", "Dropout", [Entry(Node("data"))], **attributes)
    return forward(Graph((Entry(dropout),)), {"data": data}, is_train, seed)


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_rate_and_scale(p: float) -> None:
    (output,) = run(ONES, p=str(p)).outputs
    kept = output != 0
    assert abs(kept.mean() - (1 - p)) < 0.01
    np.testing.assert_allclose(output[kept], 1 / (1 - p), rtol=1e-6)


def test_the_backward_has_the_same_mask() -> None:
    done = run(ONES)
    grads = backward(done, [ONES], {"data"})
    np.testing.assert_array_equal(grads["data"], done.outputs[0])


def test_seeds_differ() -> None:
    assert (run(ONES, seed=1).outputs[0] != run(ONES, seed=2).outputs[0]).any()


def test_prediction_passes_the_data_on_unless_always() -> None:
    (output,) = run(ONES, is_train=False).outputs
    np.testing.assert_array_equal(output, ONES)
    (output,) = run(ONES, is_train=False, mode="always").outputs
    assert (output == 0).any()


def test_shared_axes() -> None:
    (output,) = run(ONES, axes="(1,)").outputs
    np.testing.assert_array_equal(output, np.repeat(output[:, :1], 50, axis=1))
    assert 0.3 < (output == 0).mean() < 0.7


def test_the_rate_must_leave_something() -> None:
    with pytest.raises(OperatorError, match=r"Dropout at node `op`: `p` \(=1.0\)"):
        run(ONES, p="1.0")
