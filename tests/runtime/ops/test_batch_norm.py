"""What the golden cases of BatchNorm leave open."""

from __future__ import annotations

import numpy as np

from runtime.graph.registry import Array
from tests.runtime.ops.interpreter import apply


def inputs() -> list[Array]:
    generator = np.random.default_rng(3)
    data = generator.normal(size=(4, 3, 5)).astype(np.float32)
    vectors = generator.uniform(0.5, 2, size=(4, 3)).astype(np.float32)
    return [data, *vectors]


def test_global_statistics_stay_bit_for_bit() -> None:
    arrays = inputs()
    done = apply("BatchNorm", *arrays, use_global_stats="True", momentum="0.7")
    np.testing.assert_array_equal(done.next_auxiliaries["x3"], arrays[3])
    np.testing.assert_array_equal(done.next_auxiliaries["x4"], arrays[4])


def test_prediction_asks_for_no_next_statistics() -> None:
    assert not apply("BatchNorm", *inputs(), is_train=False).next_auxiliaries


def test_hidden_outputs() -> None:
    """MXNet's `var` output holds the inverse standard deviation."""
    data, *_ = arrays = inputs()
    done = apply("BatchNorm", *arrays, eps="0.01")
    values = {e.name: array for e, array in done.values.items()}
    mean, var = data.mean(axis=(0, 2)), data.var(axis=(0, 2))
    np.testing.assert_allclose(values["op_mean"], mean, rtol=1e-5)
    np.testing.assert_allclose(values["op_var"], 1 / np.sqrt(var + 0.01), rtol=1e-5)


def test_large_means_keep_their_variance() -> None:
    data, *vectors = inputs()
    far = apply("BatchNorm", data + np.float32(1000), *vectors).outputs[0]
    near = apply("BatchNorm", data, *vectors).outputs[0]
    np.testing.assert_allclose(far, near, atol=2e-3)
