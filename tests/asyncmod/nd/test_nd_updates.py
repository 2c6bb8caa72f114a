"""`mx.nd.sgd_update` and its like, against two steps of MXNet."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import asyncmod as mx
from asyncmod.nd.updates import UPDATES

FILE = Path(__file__).parents[2] / "golden" / "update_functions.npz"
# The second step's numbers, beside the learning rate.
SECOND = {"wd": 0.1, "rescale_grad": 0.5, "clip_gradient": 1.0}


@pytest.mark.parametrize("name", UPDATES)
def test_two_steps(name: str) -> None:
    with np.load(FILE) as file:
        golden = {
            key.removeprefix(f"{name}/"): value
            for key, value in file.items()
            if key.startswith(f"{name}/")
        }
    function, update = getattr(mx.nd, name), UPDATES[name]
    kept = {key: mx.nd.from_numpy(value) for key, value in golden.items()}
    weight, grad = kept["weight"], kept["grad"]
    assert weight.dtype == ("float16" if update.in_wide else "float32")
    states = [kept[f"state{i}"] for i in range(len(update.states))]
    wide = [weight.astype("float32")] if update.in_wide else []
    momentum = {"momentum": 0.9} if "momentum" in update.defaults else {}
    decay = {"wd_lh": 0.01} if "wd_lh" in update.defaults else {}
    for step, numbers in enumerate(({}, {**SECOND, **momentum, **decay})):
        result = function(weight, grad, *states, *wide, out=weight, lr=0.1, **numbers)
        assert result is weight
        if update.in_wide:
            np.testing.assert_array_equal(wide[0], golden[f"wide{step}"])
            np.testing.assert_array_equal(weight, golden[f"after{step}"])
        else:
            np.testing.assert_allclose(weight, golden[f"after{step}"], rtol=2e-5)
        for i, state in enumerate(states):
            want = golden[f"state{i}_after{step}"]
            np.testing.assert_allclose(state, want, rtol=2e-5, atol=1e-6)


def test_without_out_the_weight_stays() -> None:
    weight, grad = mx.nd.ones((2, 3)), mx.nd.ones((2, 3))
    after = mx.nd.sgd_update(weight, grad=grad, lr=0.5, lazy_update=False)
    assert isinstance(after, mx.nd.NDArray)
    assert (after == 0.5).all()
    assert (weight == 1).all()


async def test_an_optimizer_of_ones_own(monkeypatch: pytest.MonkeyPatch) -> None:
    # What is registered here is gone afterwards.
    registry = dict(mx.optimizer.Optimizer.opt_registry)
    monkeypatch.setattr(mx.optimizer.Optimizer, "opt_registry", registry)

    @mx.optimizer.register
    class Own(mx.optimizer.Optimizer):
        def create_state(self, index: Any, weight: Any) -> Any:
            return mx.nd.zeros(weight.shape)

        def update(self, index: Any, weight: Any, grad: Any, state: Any) -> None:
            self._update_count(index)
            mx.nd.sgd_mom_update(
                weight,
                grad,
                state,
                out=weight,
                lr=self._get_lr(index),
                wd=self._get_wd(index),
                momentum=0.9,
                rescale_grad=self.rescale_grad,
            )

    data = np.random.default_rng(0).normal(size=(16, 5)).astype(np.float32)
    trained = []
    for optimizer, parameters in (("own", {}), ("sgd", {"momentum": 0.9})):
        net = mx.sym.FullyConnected(mx.sym.Variable("data"), num_hidden=4, name="fc")
        batches = mx.io.NDArrayIter(data, np.arange(16) % 4, 8)
        async with mx.Module(mx.sym.SoftmaxOutput(net, name="softmax")) as mod:
            await mod.fit(
                batches,
                num_epoch=2,
                initializer=mx.init.One(),
                optimizer=optimizer,
                optimizer_params={"learning_rate": 0.1, "wd": 0.01, **parameters},
            )
            trained.append((await mod.get_params())[0])
    for name, value in trained[0].items():
        np.testing.assert_allclose(value, trained[1][name], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("call", "error", "told"),
    [
        (lambda a: mx.nd.sgd_update(a, a), mx.errors.ArgumentTypeError, "needs lr"),
        (lambda a: mx.nd.adam_update(a, a, lr=1), mx.errors.ArgumentTypeError, "mean"),
        (
            lambda a: mx.nd.sgd_update(a, a, lr=1, momentum=0.9),
            mx.errors.ArgumentTypeError,
            "has no momentum",
        ),
        (
            lambda a: mx.nd.sgd_update(a, a, 0.1),
            mx.errors.ArgumentTypeError,
            "2 arrays by position.*not 3",
        ),
        (
            lambda a: mx.nd.sgd_update(a, a[0], lr=0.1),
            mx.errors.ArgumentError,
            "one shape.*weight.*grad",
        ),
        (lambda a: mx.nd.no_update, AttributeError, "no_update"),
    ],
)
def test_errors(call: Any, error: type[Exception], told: str) -> None:
    with pytest.raises(error, match=told):
        call(mx.nd.ones((2, 3)))


def test_signatures_show_what_is_taken() -> None:
    names = list(inspect.signature(mx.nd.ftrl_update).parameters)
    assert names[:5] == ["weight", "grad", "z", "n", "lr"]
    assert {"lamda1", "beta", "wd", "out"} <= set(names)
