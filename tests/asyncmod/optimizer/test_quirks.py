"""What single optimizers do at their edges."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import asyncmod as mx
from asyncmod import optimizer
from asyncmod.module.optimizer_setup import RuleNumbers


def vector(*values: float) -> Any:
    return np.array(values, np.float32)


def test_nadam_shares_one_schedule_between_parameters() -> None:
    """As MXNet does: the product has a factor per call, whatever the parameter."""
    made = optimizer.create("nadam", beta1=0.8, schedule_decay=0.5)

    def factor(t: int) -> float:
        return float(0.8 * (1 - 0.5 * 0.96 ** (0.5 * t)))

    product = 1.0
    for t in (1, 2, 3):
        for index in (0, 1, "fc_weight"):
            product *= factor(t)
            *_, now, then, got, _ = made.hyper(index)
            assert (now, then) == (factor(t), factor(t + 1))
            assert got == pytest.approx(product, rel=1e-12)


@pytest.mark.parametrize("name", ["adam", "nadam", "lamb", "lars", "lbsgd", "sgld"])
def test_a_step_that_is_taken_back_leaves_no_trace(name: str) -> None:
    class Rate:
        base_lr = 0.5

        def __call__(self, num_update: int) -> float:
            return 0.5 / (1 + num_update)

    settings: dict[str, Any] = {"lr_scheduler": Rate()}
    if name in ("lars", "lbsgd"):
        settings["momentum"] = 0.9
    if name == "lbsgd":
        settings["batch_scale"] = 2
    made, straight = (
        optimizer.create(name, **settings, learning_rate=None) for _ in range(2)
    )
    straight.set_state(made.get_state())
    numbers, expected = RuleNumbers(made, (0, 1)), RuleNumbers(straight, (0, 1))
    numbers()
    numbers()
    numbers()
    numbers.revert()
    numbers.revert()
    expected()
    for _ in range(3):
        np.testing.assert_array_equal(numbers(), expected())


def test_lars_corrects_the_momentum_of_every_parameter() -> None:
    made = optimizer.create("lars", momentum=0.8, learning_rate=0.5)
    momentum = [[made.hyper(i)[4] for i in (0, 1)]]
    made.set_learning_rate(0.25)
    momentum += [[made.hyper(i)[4] for i in (0, 1)] for _ in range(2)]
    assert momentum == [[0.8, 0.8], [0.4, 0.4], [0.8, 0.8]]
    plain = optimizer.create("lars", momentum=0.8, momentum_correction=False)
    plain.hyper(0)
    plain.set_learning_rate(5)
    assert plain.hyper(0)[4] == 0.8


def test_lars_spares_biases_and_decays_weights_only() -> None:
    names = {0: "fc_weight", 1: "fc_bias", 2: "bn_gamma", 3: "bn_beta"}
    made = optimizer.create("lars", wd=0.1, param_idx2name=names)
    rows = [made.hyper(index) for index in names]
    assert [row[-1] for row in rows] == [1.0, 0.0, 0.0, 0.0]
    assert [row[1] for row in rows] == [0.1, 0.0, 0.0, 0.0]
    made.set_wd_mult({"bn_gamma": 2.0})
    assert made.hyper(2)[1] == 0.2


@pytest.mark.parametrize("name", ["lars", "lamb"])
def test_a_weight_of_zero_moves_at_the_plain_rate(name: str) -> None:
    made = optimizer.create(name, learning_rate=0.1)
    weight = vector(0, 0)
    made.update(0, weight, vector(1, 1), made.create_state(0, weight))
    np.testing.assert_allclose(weight, vector(-0.1, -0.1), rtol=1e-5)


def test_adamax_leaves_weights_without_gradient() -> None:
    made = optimizer.create("adamax")
    weight = vector(1, 2)
    made.update(0, weight, vector(0, 1), made.create_state(0, weight))
    assert weight[0] == 1
    assert weight[1] < 2


@pytest.mark.parametrize("name", ["ftrl", "ftml", "adam", "lars", "lamb", "sgld"])
def test_a_rate_of_zero_is_no_step(name: str) -> None:
    made = optimizer.create(name, learning_rate=0.0)
    weight = vector(1, 2)
    state = made.create_state(0, weight)
    for _ in range(2):
        made.update(0, weight, vector(0.5, -1), state)
    assert weight.tolist() == [1, 2]


@pytest.mark.parametrize("name", ["ftrl", "lamb", "lars", "lbsgd", "adamax", "signum"])
def test_a_gradient_that_is_not_a_number_shows(name: str) -> None:
    settings = {"warmup_strategy": "lars"} if name == "lbsgd" else {}
    made = optimizer.create(name, **settings)
    weight = vector(1, 2)
    made.update(0, weight, vector(np.nan, 1), made.create_state(0, weight))
    assert np.isnan(weight[0])


def test_lbsgd_changes_nothing_until_the_batch_is_full() -> None:
    made = optimizer.create(
        "lbsgd", batch_scale=3, warmup_epochs=0, learning_rate=0.1, momentum=0.5
    )
    weight = vector(1)
    state = made.create_state(0, weight)
    seen = []
    for grad in (1, 2, 6, 0, 0, 0):
        made.update(0, weight, vector(grad), state)
        seen.append(float(weight[0]))
    # The rate times 3; then half of that step again.
    np.testing.assert_allclose(seen, [1, 1, 0.1, 0.1, 0.1, -0.35], rtol=1e-6)


def test_group_adagrad_is_for_matrices() -> None:
    made = optimizer.create("groupadagrad")
    with pytest.raises(optimizer.OptimizerError, match="matrices"):
        made.create_state(0, vector(1, 2))


def test_sgld_adds_noise_of_the_right_size() -> None:
    mx.random.seed(11)
    made = optimizer.create("sgld", learning_rate=0.04)
    weights = [np.zeros(20_001, np.float32) for _ in range(2)]
    for index, weight in enumerate(weights):
        made.update(index, weight, np.zeros_like(weight), None)
    again = np.zeros_like(weights[0])
    made.update(0, again, np.zeros_like(again), None)
    for noise in (*weights, again):
        assert abs(noise.mean()) < 4 * 0.2 / np.sqrt(noise.size)
        assert abs(noise.std() - 0.2) < 0.2 * 4 / np.sqrt(2 * noise.size)
        assert abs((noise**4).mean() / 0.2**4 - 3) < 4 * np.sqrt(96 / noise.size)
    # Parameters and steps have numbers of their own.
    for one, other in ((weights[0], weights[1]), (weights[0], again)):
        assert abs(np.corrcoef(one, other)[0, 1]) < 4 / np.sqrt(one.size)


@pytest.mark.parametrize(("wd", "clip"), [(0.0, None), (0.3, 0.4)])
def test_sgld_is_half_a_step_and_noise(wd: float, clip: float | None) -> None:
    def moved(grad: Any, weight: Any, wd: float) -> Any:
        mx.random.seed(5)
        made = optimizer.create(
            "sgld", learning_rate=0.2, wd=wd, clip_gradient=clip, rescale_grad=0.5
        )
        made.update(0, weight, grad, None)
        return weight

    noise = moved(np.zeros(3), np.zeros(3), 0.0)
    assert np.abs(noise).min() > 0
    weight, grad = np.array([1.0, -2.0, 3.0]), np.array([0.2, 3.0, -1.0])
    g = np.clip(0.5 * grad, -(clip or np.inf), clip or np.inf)
    expected = weight - 0.1 * (g + wd * weight) + noise
    np.testing.assert_allclose(moved(grad, weight.copy(), wd), expected, rtol=1e-12)


def test_ftrl_keeps_the_base_rate_of_its_scheduler() -> None:
    schedule = mx.lr_scheduler.FactorScheduler(10, base_lr=0.5)
    assert optimizer.create("ftrl", lr_scheduler=schedule).learning_rate == 0.5


@pytest.mark.parametrize("centered", [False, True])
def test_an_update_of_ones_own_can_call_the_one_of_its_base(centered: bool) -> None:
    class Halved(optimizer.RMSProp):
        def update(self, index: Any, weight: Any, grad: Any, state: Any) -> None:
            super().update(index, weight, 0.5 * grad, state)

    mine, base = Halved(centered=centered), optimizer.RMSProp(centered=centered)
    assert mine.rule is None
    assert base.rule == ("rmsprop_centered" if centered else "rmsprop")
    weights = [vector(1, 2), vector(1, 2)]
    for made, weight, scale in zip((mine, base), weights, (2, 1), strict=True):
        state = made.create_state(0, weight)
        for grad in (vector(1, -1), vector(3, 1)):
            made.update(0, weight, scale * grad, state)
    np.testing.assert_array_equal(*weights)
