"""Optimizer: multipliers, counts, schedules, refusals, states; SGD's formula."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgpack
import numpy as np
import pytest
import structlog

from asyncmod import lr_scheduler, optimizer

GOLDEN = Path(__file__).parents[2] / "golden" / "training"


class Symbol:
    """Two parameters, one of them annotated."""

    def attr_dict(self) -> Mapping[str, Mapping[str, str]]:
        return {"a_weight": {"__lr_mult__": "0.5", "__wd_mult__": "2.0"}}

    def list_arguments(self) -> Sequence[str]:
        return ["data", "a_weight", "b_bias"]


NAMES = {0: "a_weight", 1: "b_bias", 2: "bn_gamma", 3: "emb"}


def rng() -> np.random.Generator:
    return np.random.default_rng(4)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("clip", [None, 0.4])
@pytest.mark.parametrize("wd", [0.0, 0.03])
def test_sgd_follows_the_formula(
    momentum: float, clip: float | None, wd: float
) -> None:
    sgd = optimizer.SGD(
        learning_rate=0.1,
        momentum=momentum,
        wd=wd,
        clip_gradient=clip,
        rescale_grad=0.5,
    )
    weight = rng().normal(size=(3, 4)).astype(np.float32)
    expected, step = weight.astype(np.float64), np.zeros((3, 4))
    state = sgd.create_state(0, weight)
    assert (state is None) == (momentum == 0)
    for number in range(5):
        grad = rng().normal(size=(3, 4)).astype(np.float32) * (number + 1)
        before = grad.copy()
        sgd.update(0, weight, grad, state)
        np.testing.assert_array_equal(grad, before)
        bound = np.inf if clip is None else clip
        gradient = np.clip(0.5 * before.astype(np.float64), -bound, bound)
        step = momentum * step - 0.1 * (gradient + wd * expected)
        expected = expected + step
    np.testing.assert_allclose(weight, expected, rtol=2e-6, atol=1e-6)


def test_the_fused_rule_gets_the_same_scalars() -> None:
    sgd = optimizer.SGD(
        learning_rate=0.1, momentum=0.9, wd=0.01, param_idx2name=NAMES, sym=Symbol()
    )
    assert sgd.rule == "sgd"
    assert sgd.state_names == ("momentum",)
    assert sgd.hyper(0) == (0.05, 0.02, 1.0, -1.0, 0.9)
    assert sgd.hyper(1) == (0.1, 0.0, 1.0, -1.0, 0.9)
    assert sgd.num_update == 1
    assert optimizer.SGD(clip_gradient=3.0).hyper(0)[3] == 3.0
    assert optimizer.SGD(clip_gradient=0).hyper(0)[3] == -1.0
    assert optimizer.SGD().state_names == ()


def test_a_subclass_with_its_own_update_has_no_fused_rule() -> None:
    class Mine(optimizer.SGD):
        def update(self, index: Any, weight: Any, grad: Any, state: Any) -> None:
            weight[...] = 0

    class Slower(optimizer.SGD):
        """Changes settings only."""

    assert Mine().rule is None
    assert Slower().rule == "sgd"


def test_weight_decay_is_for_weights_and_gammas_only() -> None:
    sgd = optimizer.SGD(wd=1.0, param_idx2name=NAMES)
    assert [sgd._get_wd(i) for i in range(4)] == [1.0, 0.0, 1.0, 0.0]


def test_which_multiplier_wins() -> None:
    sgd = optimizer.SGD(
        learning_rate=1.0,
        wd=1.0,
        param_idx2name=NAMES,
        sym=Symbol(),
        param_dict={2: SimpleNamespace(lr_mult=7.0, wd_mult=8.0)},
    )
    assert (sgd._get_lr(0), sgd._get_wd(0)) == (0.5, 2.0)
    assert (sgd._get_lr(2), sgd._get_wd(2)) == (7.0, 8.0)
    sgd.set_lr_mult({"a_weight": 3.0, 1: 4.0})
    sgd.set_wd_mult({"b_bias": 5.0})
    assert [sgd._get_lr(i) for i in (0, 1)] == [3.0, 4.0]
    assert [sgd._get_wd(i) for i in (0, 1)] == [2.0, 5.0]
    assert sgd._get_lr("a_weight") == 3.0  # a store names parameters by name


def test_schedules_see_the_count_after_this_update() -> None:
    scheduler = lr_scheduler.FactorScheduler(2, 0.1)
    sgd = optimizer.SGD(learning_rate=1.0, lr_scheduler=scheduler)
    with structlog.testing.capture_logs():
        rates = [sgd.hyper(0)[0] for _ in range(6)]
    np.testing.assert_allclose(rates, [1, 1, 0.1, 0.1, 0.01, 0.01])


def test_learning_rate_beside_a_scheduler() -> None:
    scheduler = lr_scheduler.FactorScheduler(2, base_lr=0.5)
    assert optimizer.SGD(lr_scheduler=scheduler).learning_rate == 0.5
    with structlog.testing.capture_logs() as logs:
        sgd = optimizer.SGD(lr_scheduler=scheduler, learning_rate=0.25)
    assert "overwritten" in logs[0]["event"]
    assert sgd.learning_rate == 0.25
    with pytest.raises(UserWarning, match="LRScheduler"):
        sgd.set_learning_rate(1)
    plain = optimizer.SGD()
    assert plain.learning_rate == 0.01
    plain.set_learning_rate(0.5)
    assert plain.learning_rate == 0.5


def test_any_function_is_a_scheduler() -> None:
    sgd = optimizer.SGD(lr_scheduler=lambda num_update: 1 / num_update)
    assert [sgd.hyper(0)[0] for _ in range(2)] == [1.0, 0.5]
    with pytest.raises(ValueError, match="`lr_scheduler` must be a function"):
        optimizer.SGD(lr_scheduler=0.1)


@pytest.mark.parametrize("rate", [float("nan"), float("inf"), -0.1])
def test_impossible_learning_rates(rate: float) -> None:
    with pytest.raises(ValueError, match="`learning_rate`"):
        optimizer.SGD(learning_rate=rate)
    with pytest.raises(ValueError, match="`learning_rate`"):
        optimizer.SGD().set_learning_rate(rate)

    def schedule(num_update: int) -> float:
        return rate if num_update == 2 else 0.1

    schedule.base_lr = 0.1  # type: ignore[attr-defined]
    sgd = optimizer.SGD(lr_scheduler=schedule)
    sgd.hyper(0)
    with pytest.raises(ValueError, match=r"function gave .* at num_update 2"):
        sgd.hyper(0)


@pytest.mark.parametrize("name", ["wd", "rescale_grad", "momentum", "clip_gradient"])
def test_settings_that_are_no_numbers(name: str) -> None:
    with pytest.raises(ValueError, match=f"`{name}`"):
        optimizer.SGD(**{name: float("nan")})


def test_counts_are_kept_by_index_and_device() -> None:
    sgd = optimizer.SGD(begin_num_update=10)
    sgd.hyper(0)
    sgd._set_current_context(1)
    sgd.hyper(0)
    assert sgd.num_update == 11
    sgd._set_current_context(0)
    sgd._update_count([0, 1])
    assert sgd.num_update == 12


def test_state_continues_counts_and_schedule() -> None:
    class Asked(lr_scheduler.LRScheduler):
        """The rate depends on how often it was asked, and on the update."""

        times = 0

        def __call__(self, num_update: int) -> float:
            self.times += 1
            return self.times + 100 * num_update

    def make() -> optimizer.SGD:
        return optimizer.SGD(lr_scheduler=Asked())

    first, second = make(), make()
    for index in (0, 1, 0, 1, 0):
        first.hyper(index)
    second.set_state(msgpack.unpackb(msgpack.packb(first.get_state())))
    rest = [(i, first.hyper(i)) for i in (1, 0, 1, 0)]
    assert [(i, second.hyper(i)) for i, _ in rest] == rest


def test_registry() -> None:
    assert isinstance(optimizer.create("SGD", momentum=0.5), optimizer.SGD)
    assert isinstance(optimizer.create("ccsgd"), optimizer.SGD)
    given = optimizer.Test()
    assert optimizer.create(given) is given
    with pytest.raises(ValueError, match="Cannot find optimizer zzz"):
        optimizer.create("zzz")

    @optimizer.register
    class Mine(optimizer.Optimizer):
        pass

    assert isinstance(optimizer.create("mine"), Mine)
    del optimizer.Optimizer.opt_registry["mine"]


def test_updater_makes_states_and_carries_them_over() -> None:
    def run(updater: optimizer.Updater, weight: Any, steps: int) -> None:
        for _ in range(steps):
            updater(0, np.ones_like(weight), weight)

    first = optimizer.get_updater(optimizer.SGD(momentum=0.9))
    weight = np.ones((2, 3), np.float32)
    run(first, weight, 3)
    second = optimizer.get_updater(optimizer.SGD(momentum=0.9))
    second.set_states(first.get_states())
    resumed = weight.copy()
    run(first, weight, 2)
    run(second, resumed, 2)
    np.testing.assert_array_equal(resumed, weight)
    assert second.optimizer.num_update == 5
    for broken in (b"", b"\x00", b"\x80\x03pickle", b"\xc1"):
        with pytest.raises(optimizer.OptimizerStatesError):
            second.set_states(broken)


def test_settings_are_carried_over_with_the_optimizer_only() -> None:
    first = optimizer.get_updater(optimizer.SGD(learning_rate=0.1, rescale_grad=0.5))
    first(0, np.ones(2, np.float32), np.ones(2, np.float32))
    for dumped, settings in ((False, (0.01, 0.25)), (True, (0.1, 0.5))):
        made = optimizer.SGD(learning_rate=0.01, rescale_grad=0.25)
        second = optimizer.get_updater(made)
        second.set_states(first.get_states(dump_optimizer=dumped))
        assert (made.lr, made.rescale_grad) == settings
        assert made.num_update == 1


def test_updater_takes_lists() -> None:
    updater = optimizer.get_updater(optimizer.Test(rescale_grad=2.0))
    weights = [np.zeros(2, np.float32), np.zeros(3, np.float32)]
    updater([0, 1], [np.ones(2, np.float32), np.ones(3, np.float32)], weights)
    assert [weight.tolist() for weight in weights] == [[2, 2], [2, 2, 2]]


def test_multi_precision_keeps_a_float32_copy() -> None:
    fine = optimizer.SGD(learning_rate=1e-4, momentum=0.5, multi_precision=True)
    updater = optimizer.get_updater(fine)
    weight = np.ones(1, np.float16)
    for _ in range(10):
        updater(0, np.ones(1, np.float16), weight)
    inner, master = updater.states[0]
    assert (inner.dtype, master.dtype) == (np.float32, np.float32)
    assert weight[0] == np.float16(master[0]) < 1
    coarse = np.ones(1, np.float16)
    plain = optimizer.get_updater(optimizer.SGD(learning_rate=1e-4))
    for _ in range(10):
        plain(0, np.ones(1, np.float16), coarse)
    assert coarse[0] == 1  # each step is lost in rounding


@pytest.mark.parametrize("name", ["opt_sgd_ctx1", "opt_sgd_mom_wd_clip_ctx1"])
def test_first_step_as_mxnet(name: str) -> None:
    config = json.loads((GOLDEN / f"{name}.json").read_text())
    with np.load(GOLDEN / f"{name}.npz") as arrays:
        prefix = "exp.rec0.grad.0."
        names = [key.removeprefix(prefix) for key in arrays if key.startswith(prefix)]
        sgd = optimizer.create(
            config["optimizer"],
            rescale_grad=1 / 8,
            param_idx2name=dict(enumerate(names)),
            **config["optimizer_params"],
        )
        updater = optimizer.get_updater(sgd)
        for i, parameter in enumerate(names):
            weight = arrays[f"init.{parameter}"]
            updater(i, arrays[prefix + parameter], weight)
            expected = arrays[f"exp.rec1.param.{parameter}"]
            np.testing.assert_allclose(weight, expected, rtol=1e-5, atol=1e-6)
    assert names
