"""amp_cast and amp_multicast: dtypes as MXNet 1.9.1 gives them, and gradients."""

from __future__ import annotations

import numpy as np
import pytest

import asyncmod as mx
from tests.runtime.ops.interpreter import backward
from tests.runtime.ops.recorded import run

HALF, SINGLE = np.float16, np.float32


@pytest.mark.parametrize(
    ("given", "asked", "made"),
    [
        ("float32", "float16", "float16"),
        ("float16", "float32", "float32"),
        ("float64", "float16", "float64"),
        ("int32", "float16", "int32"),
    ],
)
def test_only_the_two_are_cast(given: str, asked: str, made: str) -> None:
    done = run("amp_cast", np.arange(3, dtype=given), dtype=asked)
    assert done.outputs[0].dtype == made
    assert done.outputs[0].tolist() == [0, 1, 2]


@pytest.mark.parametrize(("narrow", "made"), [(False, SINGLE), (True, HALF)])
def test_all_become_the_widest_or_the_narrowest(narrow: bool, made: type) -> None:
    inputs = np.ones(2, HALF), np.full((3, 1), 2, SINGLE)
    done = run("amp_multicast", *inputs, num_outputs=2, cast_narrow=narrow)
    assert [output.dtype for output in done.outputs] == [made, made]
    assert [output.shape for output in done.outputs] == [(2,), (3, 1)]
    grads = backward(done, [None, np.full((3, 1), 3, made)], {"in0", "in1"})
    assert (grads["in0"] == 0).all()
    assert (grads["in1"] == 3).all()
    assert [grads[name].dtype for name in ("in0", "in1")] == [HALF, SINGLE]


async def test_a_net_of_two_precisions_trains() -> None:
    data = mx.sym.amp_cast(mx.sym.Variable("data"), dtype="float16")
    net = mx.sym.FullyConnected(data, num_hidden=4, name="fc")
    left, right = mx.sym.amp_multicast(
        net, mx.sym.Variable("bias", shape=(1, 4), dtype="float32"), num_outputs=2
    )
    net = mx.sym.broadcast_add(left, right)
    batch = mx.io.DataBatch([np.ones((2, 3), SINGLE)], [np.zeros(2, SINGLE)])
    async with mx.Module(mx.sym.SoftmaxOutput(net, name="softmax")) as mod:
        await mod.bind([("data", (2, 3))], [("softmax_label", (2,))])
        await mod.init_params(mx.init.One())
        await mod.init_optimizer()
        await mod.step(batch)
        (output,) = await mod.get_outputs()
        parameters, _ = await mod.get_params()
    assert output.dtype == SINGLE
    assert {name: value.dtype for name, value in parameters.items()} == {
        "fc_weight": HALF,
        "fc_bias": HALF,
        "bias": SINGLE,
    }
    assert all((value != 1).any() for value in parameters.values())
