"""The order of things in fit, what it counts, logs and returns."""

from __future__ import annotations

import inspect
import logging
from collections.abc import AsyncIterator, Iterator
from typing import Any

import numpy as np
import pytest
import trio

import asyncmod as mx
from asyncmod.errors import StopTraining
from asyncmod.io import DataBatch, DataDesc, NDArrayIter
from tests.asyncmod.module.nets import batch, mlp, mlp_bn, ready, rows, same, values

SETTINGS = {"learning_rate": 0.1, "momentum": 0.9}


class Noting(mx.Module):
    """A module that notes when the loop calls what."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.calls: list[str] = []
        inside: Any = self.inside
        dispatch_step, count_batch = inside.dispatch_step, inside.count_batch

        async def dispatched(batch: Any, *args: Any) -> Any:
            self.calls.append(f"step {batch.index}")
            return await dispatch_step(batch, *args)

        async def counted(metric: Any, flight: Any, count_pad: bool) -> int:
            self.calls.append(f"metric {flight.nbatch}")
            rows: int = await count_batch(metric, flight, count_pad)
            return rows

        inside.dispatch_step, inside.count_batch = dispatched, counted

    async def prepare(self, data_batch: Any, sparse_row_id_fn: Any = None) -> None:
        self.calls.append(f"prepare {data_batch.index}")


class Numbered(mx.io.DataIter):
    """Three batches in arrays that are reused; notes what is asked of it."""

    def __init__(self, calls: list[str], count: int = 3) -> None:
        super().__init__(8)
        self.provide_data = [DataDesc("data", (8, 5))]
        self.provide_label = [DataDesc("softmax_label", (8,))]
        self.calls = calls
        self.count = count
        self.given = 0
        self.arrays = rows(8)

    async def next(self) -> DataBatch:
        await trio.lowlevel.checkpoint()
        if self.given == self.count:
            self.calls.append("end")
            raise StopAsyncIteration
        data, label = rows(8, seed=self.given)
        self.arrays[0][...], self.arrays[1][...] = data, label
        self.calls.append(f"fetch {self.given}")
        self.given += 1
        return DataBatch([self.arrays[0]], [self.arrays[1]], index=self.given - 1)

    async def reset(self) -> None:
        self.calls.append("reset")
        self.given = 0


async def test_mxnets_exact_order_with_one_step_in_flight() -> None:
    async with Noting(mlp(), context=mx.reference(0)) as module:
        await ready(module)
        calls = module.calls
        await module.fit(
            Numbered(calls),
            num_epoch=1,
            in_flight=1,
            batch_end_callback=lambda param: calls.append(f"callback {param.nbatch}"),
            epoch_end_callback=lambda *_: calls.append("epoch end"),
        )
        assert calls == [
            "fetch 0",
            "step 0",
            "metric 0",
            "fetch 1",
            "prepare 1",
            "callback 0",
            "step 1",
            "metric 1",
            "fetch 2",
            "prepare 2",
            "callback 1",
            "step 2",
            "metric 2",
            "end",
            "callback 2",
            "epoch end",
            "reset",
        ]


async def test_metric_and_callbacks_follow_the_next_dispatch() -> None:
    async with Noting(mlp(), context=mx.reference(0)) as module:
        await ready(module)
        calls = module.calls
        await module.fit(
            Numbered(calls),
            num_epoch=1,
            batch_end_callback=lambda param: calls.append(f"callback {param.nbatch}"),
        )
        assert calls == [
            "fetch 0",
            "step 0",
            "fetch 1",
            "prepare 1",
            "step 1",
            "metric 0",
            "callback 0",
            "fetch 2",
            "prepare 2",
            "step 2",
            "metric 1",
            "callback 1",
            "end",
            "metric 2",
            "callback 2",
            "reset",
        ]


@pytest.mark.parametrize("kind", ["cpu", "reference"])
@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("features", [5, 50_000])
async def test_arrays_may_be_reused_for_the_next_batch(
    features: int, count: int, kind: str
) -> None:
    """Also those of more than 1 MB, which are not copied at once."""

    class Reusing(Numbered):
        async def next(self) -> DataBatch:
            given = await super().next()
            self.wide *= 0
            self.wide += given.data[0][:, :1]
            return DataBatch([self.wide], given.label)

        wide = np.zeros((8, features), np.float32)

    context = [getattr(mx, kind)(i) for i in range(count)]
    results = []
    for in_flight in (1, 2):
        async with mx.Module(mlp(), context=context) as module:
            await ready(module, features=features, **SETTINGS)
            metric = mx.metric.create(["acc", "ce"])
            await module.fit(
                Reusing([]), eval_metric=metric, num_epoch=2, in_flight=in_flight
            )
            results.append((await module.get_params(), metric.get()))
    assert same(results[0][0], results[1][0])
    assert results[0][1] == results[1][1]


async def test_every_callback_and_its_arguments() -> None:
    seen: list[tuple[str, Any]] = []
    net = mlp_bn()

    def batch_end(param: Any) -> None:
        seen.append(("batch", param))

    async def batch_end_too(param: Any) -> None:
        await trio.lowlevel.checkpoint()
        seen.append(("batch too", param))

    async def epoch_end(epoch: int, symbol: Any, args: Any, auxs: Any) -> None:
        await trio.lowlevel.checkpoint()
        assert symbol is net
        assert set(args) == set(net.list_arguments()) - {"data", "softmax_label"}
        assert set(auxs) == set(net.list_auxiliary_states())
        seen.append(("epoch", epoch))

    train, val = (NDArrayIter(*rows(16, seed), batch_size=8) for seed in (0, 1))
    async with mx.Module(net, context=mx.reference(0)) as module:
        await module.fit(
            train,
            eval_data=val,
            batch_end_callback=[batch_end, batch_end_too],
            epoch_end_callback=epoch_end,
            eval_batch_end_callback=lambda param: seen.append(("eval batch", param)),
            eval_end_callback=lambda param: seen.append(("eval", param)),
            begin_epoch=3,
            num_epoch=5,
        )
    names = [name for name, _ in seen]
    per_epoch = ["batch", "batch too"] * 2 + [
        "epoch",
        "eval batch",
        "eval batch",
        "eval",
    ]
    assert names == per_epoch * 2
    batch_params = [value for name, value in seen if name == "batch"]
    assert [(p.epoch, p.nbatch) for p in batch_params] == [
        (3, 0),
        (3, 1),
        (4, 0),
        (4, 1),
    ]
    known = batch_params[0].locals
    assert known["self"] is module
    assert known["train_data"] is train
    assert known["nbatch"] == 0
    assert known["data_batch"].data[0].shape == (8, 5)
    assert known["next_data_batch"] is batch_params[1].locals["data_batch"]
    assert batch_params[1].locals["next_data_batch"] is None
    assert [p.locals["end_of_batch"] for p in batch_params] == [False, True] * 2
    assert known.keys() >= inspect.signature(mx.Module.fit).parameters.keys()
    assert known["eval_metric"] is batch_params[0].eval_metric
    assert isinstance(batch_params[0], mx.model.BatchEndParam)
    evals = [value for name, value in seen if name == "eval"]
    assert [(p.epoch, p.nbatch) for p in evals] == [(3, 2), (4, 2)]


async def test_an_error_in_a_callback_names_it() -> None:
    def careless(param: Any) -> None:
        raise ZeroDivisionError

    async with mx.Module(mlp(), context=mx.reference(0)) as module:
        with pytest.raises(ZeroDivisionError) as caught:
            await module.fit(Numbered([]), num_epoch=1, batch_end_callback=careless)
        [note] = caught.value.__notes__
        assert "in the callback" in note
        assert "careless" in note
        await module.step(batch())


@pytest.mark.parametrize(("in_flight", "applied"), [(1, 2), (2, 3)])
async def test_stop_training(in_flight: int, applied: int) -> None:
    """The step that is under way already is completed, counted and told."""
    seen: list[int] = []

    def stop(param: Any) -> None:
        seen.append(param.nbatch)
        if param.nbatch == 1:
            raise StopTraining("enough")

    async with mx.Module(mlp(), context=mx.reference(0)) as module:
        train = Numbered([], count=6)
        history = await module.fit(
            train, num_epoch=4, batch_end_callback=stop, in_flight=in_flight
        )
        assert module.optimizer is not None
        assert module.optimizer.num_update == applied
        assert seen == list(range(applied))
        assert history.stopped_by == "enough"
        assert [row["batches"] for row in history.epochs] == [applied]
        assert train.given == 0


@pytest.mark.parametrize("plain", [True, False])
@pytest.mark.parametrize(
    ("where", "called"),
    [
        ("batch_end_callback", ["batch 0", "batch 1", "epoch"]),
        ("epoch_end_callback", ["batch 0", "batch 1", "batch 2", "epoch"]),
        (
            "eval_batch_end_callback",
            ["batch 0", "batch 1", "batch 2", "epoch", "eval 0"],
        ),
        (
            "eval_end_callback",
            ["batch 0", "batch 1", "batch 2", "epoch"]
            + ["eval 0", "eval 1", "eval 2", "eval end"],
        ),
    ],
)
async def test_what_is_called_after_stop_training(
    where: str, called: list[str], plain: bool
) -> None:
    """The list behind the callback that stops is cut short; the order is fixed."""
    calls: list[str] = []

    def stop(*_: Any) -> None:
        raise StopTraining(f"stopped in {where}")

    async def stop_later(*_: Any) -> None:
        await trio.lowlevel.checkpoint()
        raise StopTraining(f"stopped in {where}")

    callbacks: dict[str, Any] = {
        "batch_end_callback": [lambda p: calls.append(f"batch {p.nbatch}")],
        "epoch_end_callback": [lambda *_: calls.append("epoch")],
        "eval_batch_end_callback": [lambda p: calls.append(f"eval {p.nbatch}")],
        "eval_end_callback": [lambda p: calls.append("eval end")],
    }
    callbacks[where] += [
        stop if plain else stop_later,
        lambda *_: calls.append("behind"),
    ]
    async with mx.Module(mlp(), context=mx.reference(0)) as module:
        train, valid = Numbered([]), Numbered([])
        history = await module.fit(train, eval_data=valid, num_epoch=4, **callbacks)
        assert calls == called
        [row] = history.epochs
        assert history.stopped_by == f"stopped in {where}"
        assert train.given == 0  # reset: another fit may follow
        if where == "eval_end_callback":
            assert [("accuracy", row["validation-accuracy"])] == await module.score(
                valid, "acc"
            )
        else:
            assert ("validation-accuracy" in row) is (where.startswith("eval"))
        assert len((await module.fit(train, num_epoch=1)).epochs) == 1


@pytest.mark.parametrize("kind", ["bucketing", "sequential"])
async def test_stop_training_in_other_modules(kind: str) -> None:
    def stop(param: Any) -> None:
        raise StopTraining("enough")

    module: mx.BaseModule
    if kind == "bucketing":
        names = (["data"], ["softmax_label"])
        module = mx.BucketingModule(
            lambda key: (mlp(), *names), default_bucket_key=0, context=mx.reference()
        )
    else:
        module = mx.SequentialModule()
        module.add(
            mx.Module(mlp(), context=mx.reference()), take_labels=True, auto_wiring=True
        )
    train, valid = (NDArrayIter(*rows(16), batch_size=8) for _ in range(2))
    async with module:
        history = await module.fit(
            train, eval_data=valid, num_epoch=3, eval_end_callback=stop
        )
    assert history.stopped_by == "enough"
    assert [row["batches"] for row in history.epochs] == [2]
    assert "validation-accuracy" in history.epochs[0]


async def test_a_history_that_a_callback_kept_says_what_ended_the_training() -> None:
    kept: list[Any] = []
    scope = trio.CancelScope()

    def fail(param: Any) -> None:
        kept.append(param.locals["history"])
        raise ValueError("no more")

    def cancel(param: Any) -> None:
        kept.append(param.locals["history"])
        scope.cancel()

    async with mx.Module(mlp(), context=mx.reference(0)) as module:
        with pytest.raises(ValueError, match="no more"):
            await module.fit(Numbered([]), num_epoch=1, batch_end_callback=fail)
        assert kept[-1].stopped_by == "ValueError: no more"
        with scope:
            await module.fit(Numbered([]), num_epoch=1, batch_end_callback=cancel)
        assert kept[-1].stopped_by == "cancelled"
        assert [row["nbatch"] for row in kept[-1].batches] == [0]


async def test_callbacks_see_the_history_as_it_grows() -> None:
    seen = []

    def look(param: Any) -> None:
        seen.append(len(param.locals["history"].batches))

    async with mx.Module(mlp(), context=mx.reference(0)) as module:
        history = await module.fit(Numbered([]), num_epoch=2, batch_end_callback=look)
    assert seen == [1, 2, 3, 4, 5, 6]
    assert [row["train-accuracy"] for row in history.batches][2::3] == [
        row["train-accuracy"] for row in history.epochs
    ]


async def test_history_and_log_lines(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    train = NDArrayIter(*rows(20), batch_size=8)
    async with mx.Module(
        mlp(), context=mx.reference(0), logger=logging.getLogger("fit")
    ) as module:
        history = await module.fit(
            train,
            eval_data=NDArrayIter(*rows(8), batch_size=8),
            eval_metric=["acc", "ce"],
            num_epoch=2,
        )
    assert [row["epoch"] for row in history.epochs] == [0, 1]
    row = history.epochs[1]
    assert row["batches"] == 3
    assert row["samples"] == 20  # 4 rows only fill the last batch up
    assert row["seconds"] > 0
    assert row["timing"].keys() == {"data", "compute", "reduce", "metric"}
    assert all(seconds > 0 for seconds in row["timing"].values())
    assert sum(row["timing"].values()) < 2 * row["seconds"]
    assert history.timing == {
        part: sum(r["timing"][part] for r in history.epochs) for part in row["timing"]
    }
    assert [(b["epoch"], b["nbatch"], b["samples"]) for b in history.batches] == [
        (epoch, nbatch, samples)
        for epoch in (0, 1)
        for nbatch, samples in enumerate([8, 8, 4])
    ]
    lines = [record.getMessage() for record in caplog.records]
    expected = []
    for row in history.epochs:
        e = row["epoch"]
        expected += [
            f"Epoch[{e}] Train-accuracy={row['train-accuracy']:f}",
            f"Epoch[{e}] Train-cross-entropy={row['train-cross-entropy']:f}",
            f"Epoch[{e}] Time cost={row['seconds']:.3f}",
            f"Epoch[{e}] Validation-accuracy={row['validation-accuracy']:f}",
            f"Epoch[{e}] Validation-cross-entropy={row['validation-cross-entropy']:f}",
        ]
    assert lines == expected


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("metric", ["acc", "mae", "mse", "ce"])
async def test_padding_and_devices_do_not_change_a_metric(
    metric: str, count: int
) -> None:
    data, label = rows(20)
    results = []
    for pad in (True, False):
        size = 8 if pad else 20
        net = mlp(classes=3)
        context = [mx.reference(i) for i in range(count if pad else 1)]
        async with mx.Module(net, context=context) as module:
            await ready(module, count=size)
            source = NDArrayIter(data, label, size)
            scored: Any = mx.metric.create(metric)
            if metric in ("mae", "mse"):
                # These take means of batches: compare sums of one row at a time.
                scored = mx.metric.np(_row_errors if metric == "mae" else _row_squares)
            results.append(await module.score(source, scored))
    [(_, padded)], [(_, whole)] = results
    np.testing.assert_allclose(padded, whole, rtol=1e-6)


def _row_errors(label: Any, pred: Any) -> tuple[float, int]:
    return float(np.abs(pred - label[:, None]).sum()), pred.size


def _row_squares(label: Any, pred: Any) -> tuple[float, int]:
    return float(((pred - label[:, None]) ** 2).sum()), pred.size


async def test_count_pad_counts_padding() -> None:
    async with mx.Module(mlp(), context=mx.reference(0)) as module:
        await ready(module)
        source = NDArrayIter(*rows(20), batch_size=8)
        for count_pad, instances in ((False, 20), (True, 24)):
            metric = mx.metric.create("acc")
            await module.score(source, metric, count_pad=count_pad)
            assert metric.num_inst == instances
            await source.reset()
            await module.fit(
                source, eval_metric=metric, num_epoch=1, count_pad=count_pad
            )
            assert metric.num_inst == instances


def sync_batches() -> Iterator[DataBatch]:
    for seed in range(3):
        yield batch(8, seed)


async def async_batches() -> AsyncIterator[tuple[Any, Any]]:
    for seed in range(3):
        yield rows(8, seed)


class Iterable:
    """Anything with `__iter__`, `provide_*` and no more."""

    provide_data = (DataDesc("data", (8, 5)),)
    provide_label = (DataDesc("softmax_label", (8,)),)

    def __iter__(self) -> Iterator[DataBatch]:
        return sync_batches()


class AsyncIterable(Iterable):
    def __aiter__(self) -> AsyncIterator[Any]:
        return async_batches()


@pytest.mark.parametrize("source", [Iterable(), AsyncIterable()])
async def test_fit_takes_any_iterator(source: Any) -> None:
    async with mx.Module(mlp(), context=mx.reference(0)) as module:
        history = await module.fit(source, eval_data=source, num_epoch=2)
        assert [row["batches"] for row in history.epochs] == [3, 3]
        assert "validation-accuracy" in history.epochs[1]


async def test_a_module_can_be_fitted_without_labels() -> None:
    net = mx.sym.FullyConnected(mx.sym.Variable("data"), num_hidden=1, name="fc")
    net = mx.sym.MakeLoss(mx.sym.mean(net * net), name="loss")
    source = NDArrayIter(rows(16)[0], batch_size=8)
    async with mx.Module(net, label_names=None, context=mx.reference(0)) as module:
        history = await module.fit(source, eval_metric="loss", num_epoch=20)
        losses = [row["train-loss"] for row in history.epochs]
        assert losses[-1] < losses[0]


async def test_fit_goes_on_where_it_was() -> None:
    """A second fit keeps parameters and optimizer, as in MXNet."""
    async with mx.Module(mlp(), context=mx.reference(0)) as module:
        await ready(module, **SETTINGS)
        await module.fit(Numbered([]), num_epoch=1)
        await module.fit(Numbered([]), optimizer="sgd", begin_epoch=1, num_epoch=2)
        twice = await module.get_params()
        assert module.optimizer is not None
        assert module.optimizer.lr == 0.1
    async with mx.Module(mlp(), context=mx.reference(0)) as module:
        await ready(module, **SETTINGS)
        await module.fit(Numbered([]), num_epoch=2)
        assert same(await module.get_params(), twice)


async def test_fit_without_epochs_only_prepares() -> None:
    async with mx.Module(mlp(), context=mx.reference(0)) as module:
        history = await module.fit(Numbered([]), begin_epoch=2, num_epoch=2)
        assert history.epochs == []
        assert module.optimizer_initialized


async def test_fit_starts_from_given_values() -> None:
    given = values(mlp())
    del given["fc2_bias"]
    async with mx.Module(mlp(), context=mx.reference(0)) as module:
        with pytest.raises(RuntimeError, match="fc2_bias is not presented"):
            await module.fit(Numbered([]), arg_params=given, num_epoch=1)
        await module.fit(
            Numbered([]),
            arg_params=given,
            allow_missing=True,
            initializer=mx.init.One(),
            optimizer_params={"learning_rate": 0.0},
            num_epoch=1,
        )
        after, _ = await module.get_params()
        assert same({name: after[name] for name in given}, given)
        assert (after["fc2_bias"] == 0).all()


async def test_the_last_batch_may_be_smaller() -> None:
    """Without padding: another executor, the same parameters, the same rescaling."""

    def source() -> mx.io.BatchIterator:
        return mx.io.as_async(
            [batch(8, 0), batch(3, 1)],
            provide_data=[DataDesc("data", (8, 5))],
            provide_label=[DataDesc("softmax_label", (8,))],
        )

    async with mx.Module(mlp(), context=[mx.reference(0), mx.reference(1)]) as module:
        await ready(module, **SETTINGS)
        metric = mx.metric.create("acc")
        await module.fit(source(), eval_metric=metric, num_epoch=2)
        assert metric.num_inst == 11
        assert module.data_shapes == [("data", (3, 5))]
        fitted = await module.get_params()
    async with mx.Module(mlp(), context=mx.reference(0)) as module:
        await ready(module, **SETTINGS)
        for _ in range(2):
            await module.step(batch(8, 0))
            await module.step(batch(3, 1))
        after = await module.get_params()
        for name in fitted[0]:
            np.testing.assert_allclose(
                fitted[0][name], after[0][name], rtol=1e-5, atol=1e-6
            )


class Closable:
    """A synchronous source that can be closed, as a file can."""

    provide_data = (DataDesc("data", (8, 5)),)
    provide_label = (DataDesc("softmax_label", (8,)),)

    def __init__(self) -> None:
        self.closed = False
        self.left = 0
        self.begun: list[Iterator[DataBatch]] = []

    def __iter__(self) -> Iterator[DataBatch]:
        # Kept, so that nothing but its `close` ends it.
        self.begun.append(self.read())
        return self.begun[-1]

    def read(self) -> Iterator[DataBatch]:
        try:
            yield from sync_batches()
        finally:
            self.left += 1

    def close(self) -> None:
        self.closed = True


async def test_the_source_stays_open_and_what_was_begun_is_ended() -> None:
    source = Closable()
    async with mx.Module(mlp(), context=mx.reference(0)) as module:
        await ready(module)
        await module.score(source, "acc", num_batch=1)
        assert source.left == len(source.begun) == 1
        await module.predict(source, num_batch=2)
        assert source.left == len(source.begun) == 2
    assert not source.closed


async def test_a_generator_can_be_read_piece_by_piece() -> None:
    source = sync_batches()
    async with mx.Module(mlp(), context=mx.reference(0)) as module:
        await ready(module)
        for _ in range(3):
            metric = mx.metric.create("acc")
            await module.score(source, metric, num_batch=1, reset=False)
            assert metric.num_inst == 8
        assert await module.predict(source, reset=False) == []
