"""What a subclass has left out: the error says what to define."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import asyncmod as mx


class Own(mx.BaseModule):
    """A module that defines nothing."""


MEMBERS: list[tuple[Callable[[], Any], str]] = [
    (lambda: mx.rnn.BaseRNNCell("p_").state_info, "the property `state_info`: shape"),
    (lambda: mx.rnn.BaseRNNCell("p_")(None, []), r"`__call__\(self, inputs, states\)`"),
    (
        lambda: mx.operator.CustomOp().forward(True, [], [], [], []),
        r"`forward\(self, is_train, req, in_data, out_data, aux\)`",
    ),
    (
        lambda: mx.operator.CustomOp().backward([], [], [], [], [], []),
        r"`backward\(self, req, out_grad, in_data, out_data, in_grad, aux\)`",
    ),
    (
        lambda: mx.operator.CustomOpProp().create_operator(mx.cpu(), [], []),
        r"`create_operator\(self, ctx, in_shapes, in_dtypes\)`",
    ),
    (lambda: mx.io.DataIter().next(), r"`async def next\(self\)`.*a DataBatch or"),
    (lambda: mx.io.DataIter().reset(), r"`async def reset\(self\)`, which begins"),
    (lambda: mx.io.DataIter().iter_next(), r"`iter_next\(self\)`, which moves"),
    (lambda: mx.metric.EvalMetric("m").update([], []), r"`update\(self, labels, preds"),
    (lambda: mx.optimizer.Optimizer().update(0, None, None, None), r"`update\(index"),
    (lambda: mx.optimizer.Optimizer().hyper(0), r"`hyper\(self, index\)`, which"),
    (
        lambda: mx.init.Initializer()("fc_weight", None),
        r"`_init_weight\(self, name, arr\)`",
    ),
    (lambda: mx.lr_scheduler.LRScheduler()(1), r"`__call__\(self, num_update\)`"),
    (lambda: Own().data_names, r"Own must define `data_names`; help\(Own\.data_names"),
]


@pytest.mark.parametrize(("use", "told"), MEMBERS)
def test_the_error_says_what_to_define(use: Callable[[], Any], told: str) -> None:
    with pytest.raises(NotImplementedError, match=told):
        use()


async def test_members_that_are_awaited() -> None:
    with pytest.raises(NotImplementedError, match=r"Own must define `get_params`"):
        await Own().get_params()
