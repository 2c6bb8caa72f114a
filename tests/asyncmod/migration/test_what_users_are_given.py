"""What code of the user's is handed are `mx.nd` arrays, as in MXNet.

Old metrics, optimizers, initializers, updaters and callbacks call `asnumpy`, `context`
and the like on what they get.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import asyncmod as mx
from tests.asyncmod.module.nets import mlp, rows

Seen = dict[str, type]


class Metric(mx.metric.EvalMetric):
    """The share of right guesses, as MXNet's scripts write it."""

    def __init__(self, seen: Seen) -> None:
        super().__init__("own")
        self.seen = seen

    def update(self, labels: Any, preds: Any) -> None:
        self.seen |= {"label": type(labels[0]), "prediction": type(preds[0])}
        guess = mx.nd.argmax(preds[0], axis=1).asnumpy()
        self.sum_metric += int((guess == labels[0].asnumpy()).sum())
        self.num_inst += len(guess)


class Momentum(mx.optimizer.Optimizer):
    """An optimizer without a rule of asyncmod's."""

    def __init__(self, seen: Seen, **settings: Any) -> None:
        super().__init__(**settings)
        self.seen = seen

    def create_state(self, index: Any, weight: Any) -> Any:
        return mx.nd.zeros(weight.shape, weight.context, dtype=weight.dtype)

    def update(self, index: Any, weight: Any, grad: Any, state: Any) -> None:
        self.seen |= {"weight": type(weight), "gradient": type(grad)}
        self.seen["state"] = type(state)
        self._update_count(index)
        state[:] = 0.5 * state + self.rescale_grad * grad
        weight[:] -= self._get_lr(index) * state


class Ones(mx.init.Initializer):
    """Ones, made elsewhere."""

    def __init__(self, seen: Seen) -> None:
        super().__init__()
        self.seen = seen

    def _init_weight(self, name: Any, arr: Any) -> None:
        self.seen["initialized"] = type(arr)
        mx.random.uniform(1, 1, out=arr)


@pytest.mark.parametrize("context", [mx.cpu(), mx.reference()])
async def test_code_of_the_users_is_given_arrays_of_mx_nd(context: mx.Context) -> None:
    seen: Seen = {}

    def batch_end(param: Any) -> None:
        seen["batch"] = type(param.locals["data_batch"].data[0])

    def epoch_end(epoch: int, symbol: Any, args: Any, auxs: Any) -> None:
        seen["parameter"] = type(args["fc1_weight"])

    async with mx.Module(mlp(), context=context) as module:
        data = mx.io.NDArrayIter(*rows(12), batch_size=8)
        optimizer = Momentum(seen, learning_rate=0.5, rescale_grad=1 / 8)
        await module.fit(
            data,
            eval_metric=Metric(seen),
            optimizer=optimizer,
            initializer=Ones(seen),
            batch_end_callback=batch_end,
            epoch_end_callback=epoch_end,
            num_epoch=1,
        )
        seen["output"] = type((await module.get_outputs())[0])
        seen["part"] = type((await module.get_outputs(merge_multi_context=False))[0][0])
        seen["predicted"] = type(await module.predict(data))
        seen["kept"] = type((await module.get_params())[0]["fc1_weight"])
    assert [name for name in seen if seen[name] is not mx.nd.NDArray] == []
    assert len(seen) == 12


async def test_updaters_of_a_store_are_given_arrays_of_mx_nd() -> None:
    seen: list[type] = []

    def update(key: Any, pushed: Any, stored: Any) -> None:
        seen.extend((type(pushed), type(stored)))
        stored += pushed.as_in_context(stored.context)

    async with mx.open_runtime():
        store = mx.kv.create()
        await store.init("a", np.ones(2))
        store._set_updater(update)
        await store.push("a", [np.ones(2), np.ones(2)])
        out = mx.nd.empty(2)
        await store.pull("a", out)
    assert seen == [mx.nd.NDArray] * 2
    assert out.tolist() == [3, 3]
