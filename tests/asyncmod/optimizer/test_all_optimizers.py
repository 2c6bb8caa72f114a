"""Every optimizer against its formula in float64, and what all have in common."""

from __future__ import annotations

import math
from typing import Any

import msgpack
import numpy as np
import pytest

import asyncmod as mx
from asyncmod import optimizer
from asyncmod.optimizer import Optimizer
from tests.asyncmod.optimizer import formulas
from tests.asyncmod.optimizer.cases import CASES, NAMES, defaults, label, make

WITH_FORMULA = [case for case in CASES if case[0] != "sgld"]
COMMON: list[dict[str, Any]] = [
    {},
    {"wd": 0.05, "rescale_grad": 0.5},
    {"wd": 0.05, "rescale_grad": 2.0, "clip_gradient": 0.6},
]


def gradients(count: int, seed: int = 1) -> list[Any]:
    random = np.random.default_rng(seed)
    return list(random.normal(size=(count, 3, 4)).astype(np.float32))


def start() -> Any:
    return np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)


def run(made: Optimizer, weight: Any, grads: list[Any], state: Any = None) -> Any:
    """Update a weight in place; returns its state."""
    if state is None:
        state = made.create_state_multi_precision(0, weight)
    for grad in grads:
        made.update_multi_precision(0, weight, grad, state)
    return state


def test_every_name_of_mxnet_is_known() -> None:
    mxnet = (
        "adadelta adagrad adam adamax ccsgd dcasgd ftml ftrl groupadagrad lamb lars "
        "lbsgd nadam nag rmsprop sgd sgld signum test"
    )
    assert set(Optimizer.opt_registry) >= set(mxnet.split())
    assert set(NAMES) == set(mxnet.split()) - {"ccsgd", "test"}
    for klass in Optimizer.opt_registry.values():
        assert getattr(mx.optimizer, klass.__name__) is klass


@pytest.mark.parametrize(
    ("name", "rate"),
    [
        *((n, 0.01) for n in ("sgd", "nag", "signum", "adagrad", "ftml", "lars")),
        *((n, 0.001) for n in ("adam", "nadam", "rmsprop", "lamb")),
        ("adamax", 0.002),
        ("ftrl", 0.1),
    ],
)
def test_default_learning_rates(name: str, rate: float) -> None:
    assert optimizer.create(name).learning_rate == rate


@pytest.mark.parametrize("common", COMMON, ids=["plain", "wd", "clip"])
@pytest.mark.parametrize("case", WITH_FORMULA, ids=label)
def test_updates_follow_the_formula(
    case: tuple[str, dict[str, Any]], common: dict[str, Any]
) -> None:
    name, settings = case
    if name == "groupadagrad":
        common = {k: v for k, v in common.items() if k != "wd"}
    weight = start()
    grads = gradients(7)
    before = [grad.copy() for grad in grads]
    run(make(name, settings, **common), weight, grads)
    np.testing.assert_array_equal(grads, before)
    s = formulas.settings(**common, **defaults(name) | settings)
    formula: formulas.Formula = getattr(formulas, name)
    expected = formula(
        start().astype(np.float64), [g.astype(np.float64) for g in grads], s
    )
    assert np.abs(expected - start()).max() > 1e-3
    np.testing.assert_allclose(weight, expected, rtol=1e-4, atol=2e-6)


@pytest.mark.parametrize("case", CASES, ids=label)
def test_a_parabola_is_descended(case: tuple[str, dict[str, Any]]) -> None:
    name, settings = case
    mx.random.seed(3)
    rates = {"lamb": 0.02, "lars": 0.2, "lbsgd": 0.05, "sgld": 0.01}
    made = make(name, {"learning_rate": rates.get(name, 0.1)} | settings)
    scale = np.array([[1.0, 3.0, 0.5, 2.0]], np.float32)
    weight = 3 * start()
    state = made.create_state(0, weight)
    first = float((scale * weight**2).sum())
    for _ in range(400):
        made.update(0, weight, 2 * scale * weight, state)
    assert float((scale * weight**2).sum()) < 0.5 * first


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("name", NAMES)
def test_the_weight_keeps_its_precision(name: str, dtype: str) -> None:
    """Within one rounding of what float64 gives, from the first update on."""
    mx.random.seed(3)
    made, exact = make(name, {}), make(name, {})
    if name == "sgld":
        exact.set_state(made.get_state())
    weight = start().astype(dtype)
    grad = gradients(1)[0].astype(dtype)
    expected = weight.astype(np.float64)
    run(exact, expected, [grad.astype(np.float64)])
    state = run(made, weight, [grad])
    assert weight.dtype == dtype
    for array in [state] if isinstance(state, np.ndarray) else state or ():
        assert (array.dtype, array.shape) == (weight.dtype, weight.shape)
    precision = max(float(np.finfo(dtype).eps), 1e-13)
    np.testing.assert_allclose(weight, expected, rtol=4 * precision, atol=precision)


@pytest.mark.parametrize("name", NAMES)
def test_multi_precision_is_the_update_in_float32(name: str) -> None:
    mx.random.seed(3)
    made = make(name, {}, multi_precision=True)
    plain = make(name, {})
    plain.set_state(made.get_state())
    coarse, fine = start().astype(np.float16), start().astype(np.float16)
    fine = fine.astype(np.float32)
    grads = [grad.astype(np.float16) for grad in gradients(4)]
    run(made, coarse, grads)
    run(plain, fine, [grad.astype(np.float32) for grad in grads])
    np.testing.assert_array_equal(coarse, fine.astype(np.float16))


@pytest.mark.parametrize("case", CASES, ids=label)
def test_saved_states_continue_bit_for_bit(case: tuple[str, dict[str, Any]]) -> None:
    def updater() -> optimizer.Updater:
        schedule = mx.lr_scheduler.FactorScheduler(2, 0.5, base_lr=0.1)
        return optimizer.get_updater(make(*case, lr_scheduler=schedule))

    first, second = updater(), updater()
    weights = [start(), start() + 1]
    for grad in gradients(2):  # the next one has another learning rate
        first([0, 1], [grad, 2 * grad], weights)
    second.set_states(first.get_states())
    resumed = [weight.copy() for weight in weights]
    for grad in gradients(4, seed=2):
        first([0, 1], [grad, 2 * grad], weights)
        second([0, 1], [grad, 2 * grad], resumed)
    for weight, again in zip(weights, resumed, strict=True):
        np.testing.assert_array_equal(again, weight)


NUMBERS = [
    (name, setting)
    for name in NAMES
    for setting, value in defaults(name).items()
    if (isinstance(value, int | float) and not isinstance(value, bool))
    or setting in ("learning_rate", "clip_weights", "lower_bound", "upper_bound")
    if setting != "num_epochs"
]


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize(("name", "setting"), NUMBERS)
def test_settings_that_are_no_numbers(name: str, setting: str, value: float) -> None:
    with pytest.raises(optimizer.OptimizerError, match=f"`{setting}`"):
        optimizer.create(name, **{setting: value})


@pytest.mark.parametrize(
    ("name", "setting", "value"),
    [
        ("adam", "beta1", 1.0),
        ("adam", "beta2", -0.1),
        ("rmsprop", "gamma1", 1.0),
        ("adadelta", "rho", 1.5),
        ("lbsgd", "batch_scale", 0),
        ("lbsgd", "warmup_strategy", "steep"),
        ("ftrl", "learning_rate", -1.0),
        ("groupadagrad", "wd", 0.1),
    ],
)
def test_settings_that_cannot_be(name: str, setting: str, value: Any) -> None:
    with pytest.raises(optimizer.OptimizerError, match=f"`{setting}`"):
        optimizer.create(name, **{setting: value})


@pytest.mark.parametrize("name", NAMES)
def test_the_state_is_plain_data(name: str) -> None:
    made = make(name, {})
    made.hyper(0)
    content = made.get_state()
    again = make(name, {})
    again.set_state(msgpack.unpackb(msgpack.packb(content)))
    assert again.hyper(0) == made.hyper(0)
