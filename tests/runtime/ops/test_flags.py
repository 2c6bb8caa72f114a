"""What operators promise about themselves, for plans to rely on."""

from __future__ import annotations

import numpy as np
import pytest

from runtime.graph import registry
from runtime.graph.registry import Operator
from tests.runtime.ops.interpreter import backward, forward
from tests.runtime.ops.test_gradients import ROWS, Row, build

OPERATORS = {registry.get(name) for name in registry.names()}


def named(condition: object) -> set[str]:
    assert callable(condition)
    return {operator.name for operator in OPERATORS if condition(operator)}


def test_which_operators_share_their_gradient() -> None:
    expected = {"add_n", "elemwise_add"}
    expected |= {"_plus_scalar", "_minus_scalar", "_mod_scalar"}
    assert named(lambda operator: operator.shares_gradient) == expected


def test_which_operators_are_views() -> None:
    expected = {"Flatten", "Reshape", "_copy", "BlockGrad"}
    assert named(lambda operator: operator.is_view) >= expected


def test_which_operators_end_a_graph() -> None:
    assert named(lambda operator: operator.is_loss) == {
        "SoftmaxOutput",
        "LinearRegressionOutput",
        "LogisticRegressionOutput",
        "MAERegressionOutput",
        "MakeLoss",
        "SVMOutput",
        "make_loss",
        "BlockGrad",
        "Custom",
    }


def promising(*flags: str) -> list[Row]:
    def holds(operator: Operator) -> bool:
        return any(getattr(operator, flag) for flag in flags)

    return [row for row in ROWS if holds(registry.get(row.operator))]


@pytest.mark.parametrize("row", promising("shares_gradient", "is_view"), ids=str)
def test_shared_gradients_are_the_same_numbers(row: Row) -> None:
    graph, point = build(row, np.random.default_rng(7))
    run = forward(graph, point, is_train=True)
    head = np.random.default_rng(8).normal(size=run.outputs[0].shape)
    for grad in backward(run, [head], set(point)).values():
        np.testing.assert_array_equal(grad.ravel(), head.ravel())


@pytest.mark.parametrize("row", promising("is_view"), ids=str)
def test_views_are_the_same_numbers(row: Row) -> None:
    graph, point = build(row, np.random.default_rng(7))
    run = forward(graph, point, is_train=True)
    (data,) = point.values()
    np.testing.assert_array_equal(run.outputs[0].ravel(), data.ravel())


def test_aliases_are_found() -> None:
    for operator in OPERATORS:
        for name in (operator.name, *operator.aliases):
            assert registry.get(name) is operator
