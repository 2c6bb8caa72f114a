"""EarlyStopping and BestParameters: when training ends, and what it leaves."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import trio

import asyncmod as mx
from asyncmod.callback import BatchEndParam, BestParameters, EarlyStopping
from asyncmod.errors import ArgumentError, StopTraining
from asyncmod.io import NDArrayIter
from tests.asyncmod.module.nets import mlp_bn, rows

Parameters = dict[str, np.ndarray[Any, Any]]


class Told:
    """A metric that says what it is told."""

    def __init__(self, **values: float) -> None:
        self.values = values

    def get_global_name_value(self) -> list[tuple[str, float]]:
        return list(self.values.items())


def end(epoch: int, **values: float) -> BatchEndParam:
    return BatchEndParam(epoch, 9, Told(**values), {})


async def epochs(stop: EarlyStopping, *values: float, name: str = "accuracy") -> int:
    """The epoch at which it stops."""
    for epoch, value in enumerate(values):
        try:
            await stop(end(epoch, **{name: value}))
        except StopTraining:
            return epoch
    return len(values)


async def test_patience() -> None:
    assert await epochs(EarlyStopping(), 0.1, 0.2, 0.2, 0.9) == 2
    stop = EarlyStopping(patience=2)
    assert await epochs(stop, 0.1, 0.3, 0.2, 0.1, 0.4, 0.4, 0.3, 0.2, 0.9) == 7
    assert (stop.best, stop.best_epoch, stop.waited) == (0.4, 4, 3)


async def test_directions() -> None:
    assert await epochs(EarlyStopping(), 3.0, 2.0, 2.5, name="mse") == 2
    assert await epochs(EarlyStopping(), 1.0, 2.0, 1.5, name="top_k_accuracy_5") == 2
    assert await epochs(EarlyStopping(mode="min"), 3.0, 2.0, 2.5, name="own") == 2
    assert await epochs(EarlyStopping(mode="max"), 1.0, 2.0, 1.5, name="mse") == 2
    with pytest.raises(ArgumentError, match=r"`own` .* mode='min' or mode='max'"):
        await epochs(EarlyStopping(), 1.0, name="own")


async def test_small_gains_and_what_is_no_number() -> None:
    assert await epochs(EarlyStopping(min_delta=0.125), 0.5, 0.75, 0.875, 1.0) == 2
    assert await epochs(EarlyStopping(patience=1), math.nan, 0.1, math.nan, 0.1) == 3
    stop = EarlyStopping()
    with pytest.raises(StopTraining, match="accuracy was never a number"):
        await stop(end(0, accuracy=math.nan))


async def test_which_value() -> None:
    with pytest.raises(ArgumentError, match=r"2 values \(mse, mae\): choose one"):
        await EarlyStopping()(end(0, mse=1, mae=2))
    with pytest.raises(ArgumentError, match="'f1', but the metric has: mse, mae"):
        await EarlyStopping("f1")(end(0, mse=1, mae=2))
    stop = EarlyStopping("mae")
    await stop(end(0, mse=1, mae=2))
    await stop(end(0, mse=1, mae=1))
    assert stop.best == 1


def test_wrong_settings() -> None:
    with pytest.raises(ArgumentError, match="`patience` is -1"):
        EarlyStopping(patience=-1)
    with pytest.raises(ArgumentError, match="`mode` is 'best'"):
        EarlyStopping(mode="best")  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="`min_delta` is nan"):
        BestParameters(None, min_delta=math.nan)


class Scores:
    """A metric whose value is the next of a list at every evaluation."""

    def __init__(self, *scores: float) -> None:
        self._scores: Iterator[float] = iter(scores)

    def __call__(self, label: Any, pred: Any) -> float:
        return next(self._scores)


async def train(
    module: mx.BaseModule, *scores: float, snapshots: list[Parameters], **more: Any
) -> Any:
    """Fit, one validation batch per epoch; parameters at the end of each epoch."""

    async def keep(epoch: int, symbol: Any, args: Any, auxs: Any) -> None:
        snapshots.append({**args, **auxs})

    return await module.fit(
        NDArrayIter(*rows(24), batch_size=8),
        eval_data=NDArrayIter(*rows(8, seed=5), batch_size=8),
        eval_metric="acc",
        validation_metric=mx.metric.CustomMetric(Scores(*scores), name="own"),
        epoch_end_callback=keep,
        num_epoch=len(scores),
        **more,
    )


async def holds(module: mx.BaseModule, expected: Parameters) -> bool:
    args, auxs = await module.get_params()
    now = {**args, **auxs}
    assert now.keys() == expected.keys()
    return all(np.array_equal(now[name], expected[name]) for name in now)


@pytest.mark.parametrize("in_flight", [1, 2])
async def test_the_best_is_restored_after_the_last_epoch(in_flight: int) -> None:
    ends: list[Parameters] = []
    async with mx.Module(mlp_bn(), context=mx.cpu()) as module:
        async with BestParameters(module, mode="max") as best:
            await train(
                module,
                0.25,
                0.75,
                0.5,
                snapshots=ends,
                eval_end_callback=best,
                in_flight=in_flight,
            )
            assert await holds(module, ends[2])
        assert await holds(module, ends[1])
        assert (best.best, best.best_epoch) == (0.75, 1)


async def test_the_best_is_restored_after_an_early_stop() -> None:
    ends: list[Parameters] = []
    async with mx.Module(mlp_bn(), context=mx.reference()) as module:
        async with BestParameters(module, mode="min") as best:
            history = await train(
                module,
                *(0.5, 0.25, 0.75, 1.0, 0.0),
                snapshots=ends,
                eval_end_callback=[best, EarlyStopping(mode="min", patience=1)],
            )
        assert len(history.epochs) == 4
        assert history.stopped_by.endswith("is not better than 0.25, of epoch 1")
        assert await holds(module, ends[1])


async def test_the_best_is_restored_after_an_error_or_cancellation() -> None:
    class Broken(Exception):
        pass

    def fail(param: BatchEndParam) -> None:
        if param.epoch == 2:
            if scope is None:
                raise Broken
            scope.cancel()

    for scope in (None, trio.CancelScope()):
        ends: list[Parameters] = []
        async with mx.Module(mlp_bn(), context=mx.reference()) as module:
            with scope or pytest.raises(Broken):
                async with BestParameters(module, mode="max") as best:
                    await train(
                        module,
                        *(0.5, 0.25, 0.75, 0.0),
                        snapshots=ends,
                        eval_end_callback=best,
                        batch_end_callback=fail,
                    )
            assert len(ends) == 2
            assert await holds(module, ends[0])


@pytest.mark.parametrize("ended_by", ["epochs", "stop", "error", "cancel", "deadline"])
@pytest.mark.parametrize("kind", ["bucketing", "sequential"])
async def test_the_best_of_other_modules(
    kind: str, ended_by: str, autojump_clock: trio.testing.MockClock
) -> None:
    """After every way in which training may end."""
    module: mx.BaseModule
    if kind == "bucketing":
        names = (["data"], ["softmax_label"])
        module = mx.BucketingModule(
            lambda key: (mlp_bn(), *names), default_bucket_key=0, context=mx.reference()
        )
    else:
        inner = mx.Module(mlp_bn(), context=mx.reference())
        module = mx.SequentialModule()
        module.add(inner, take_labels=True, auto_wiring=True)
    ends: list[Parameters] = []
    scope = trio.CancelScope()

    async def end_it(param: BatchEndParam) -> None:
        if param.epoch < 2:
            return
        if ended_by == "stop":
            raise StopTraining
        if ended_by == "error":
            raise ZeroDivisionError
        if ended_by == "cancel":
            scope.cancel()
        elif ended_by == "deadline":
            scope.deadline = trio.current_time() + 0.01
            await trio.sleep_forever()

    async with module:
        with scope, contextlib.suppress(ZeroDivisionError):
            async with BestParameters(module, mode="max") as best:
                await train(
                    module,
                    *(0.5, 0.75, 0.25),
                    snapshots=ends,
                    eval_end_callback=best,
                    batch_end_callback=end_it,
                )
        assert scope.cancelled_caught == (ended_by in ("cancel", "deadline"))
        assert (best.best, best.best_epoch) == (0.75, 1)
        assert len(ends) == (3 if ended_by in ("epochs", "stop") else 2)
        assert await holds(module, ends[1])


async def test_nothing_measured_nothing_restored() -> None:
    async with mx.Module(mlp_bn(), context=mx.reference()) as module:
        async with BestParameters(module) as best:
            pass
        assert best.best is None
        assert not module.params_initialized


async def test_an_error_of_training_is_not_hidden_by_that_of_restoring() -> None:
    class Module:
        async def get_params(self) -> tuple[dict[str, int], dict[str, int]]:
            return {}, {}

        async def set_params(self, *parameters: object) -> None:
            raise RuntimeError("the device is gone")

    async def around(error: Exception | None) -> None:
        async with BestParameters(Module()) as best:
            await best(end(0, mse=1))
            if error is not None:
                raise error

    with pytest.raises(ValueError, match="why") as caught:
        await around(ValueError("why"))
    assert caught.value.__notes__ == [
        "the best parameters were not restored: the device is gone"
    ]
    with pytest.raises(RuntimeError, match="gone"):
        await around(None)
