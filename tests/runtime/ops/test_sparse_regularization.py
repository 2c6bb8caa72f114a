"""What the golden case of IdentityAttachKLSparseReg leaves open."""

from __future__ import annotations

import numpy as np

from tests.runtime.ops.interpreter import apply, backward

DATA = np.array([[0.2, 0.5], [0.4, 0.9]])
AVERAGE = np.array([0.3, 0.5])


def test_each_row_gets_the_slope_of_the_divergence() -> None:
    run = apply(
        "IdentityAttachKLSparseReg",
        DATA,
        AVERAGE,
        sparseness_target="0.25",
        penalty="2",
        momentum="0.5",
    )
    average = np.array([0.3, 0.6])
    np.testing.assert_allclose(run.next_auxiliaries["x1"], average)
    slope = 2 * (0.75 / (1 - average) - 0.25 / average)
    grad = backward(run, [np.ones((2, 2))], {"x0"})["x0"]
    np.testing.assert_allclose(grad, [1 + slope, 1 + slope])


def test_prediction_is_the_identity_and_keeps_the_average() -> None:
    run = apply("IdentityAttachKLSparseReg", DATA, AVERAGE, is_train=False)
    assert run.outputs[0].tolist() == DATA.tolist()
    assert not run.next_auxiliaries
