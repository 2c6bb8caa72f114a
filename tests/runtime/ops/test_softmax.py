"""Softmax over the counted entries of a row only."""

from __future__ import annotations

import numpy as np
import pytest

from tests.runtime.ops.interpreter import apply, backward

DATA = np.random.default_rng(1).normal(size=(2, 5))
HEAD = np.random.default_rng(2).normal(size=(2, 5))


@pytest.mark.parametrize(
    ("operator", "outside"),
    [("softmax", 0), ("softmin", 0), ("log_softmax", -np.inf)],
)
def test_a_row_of_some_length_is_like_a_shorter_row(
    operator: str, outside: float
) -> None:
    length = np.array([3.0, 0.0])
    done = apply(operator, DATA, length, use_length="True")
    short = apply(operator, DATA[:1, :3])
    np.testing.assert_array_equal(done.outputs[0][:1, :3], short.outputs[0])
    assert (done.outputs[0][0, 3:] == outside).all()
    assert (done.outputs[0][1] == outside).all()

    grad = backward(done, [HEAD], {"x0"})["x0"]
    expected = backward(short, [HEAD[:1, :3]], {"x0"})["x0"]
    np.testing.assert_array_equal(grad[:1, :3], expected)
    assert not grad[0, 3:].any()
    assert not grad[1].any()


def test_a_chosen_output_dtype() -> None:
    (output,) = apply("softmax", DATA.astype(np.float32), dtype="float64").outputs
    assert output.dtype == np.float64
    np.testing.assert_allclose(output.sum(axis=1), 1, rtol=1e-15)
