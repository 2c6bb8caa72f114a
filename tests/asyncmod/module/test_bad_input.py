"""Bad input is refused by name, value and rule, before anything runs."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import pytest
import trio

import asyncmod as mx
from asyncmod.errors import (
    ArgumentError,
    ArgumentTypeError,
    DeviceError,
    InputError,
    NameMismatchError,
    OperatorError,
    UnsupportedError,
)
from asyncmod.io import DataBatch, DataDesc
from tests.asyncmod.module.nets import batch, mlp, ready, rows, same, values


@pytest.fixture
async def module() -> AsyncIterator[mx.Module]:
    async with mx.Module(mlp(), context=mx.reference(0)) as made:
        yield await ready(made, learning_rate=0.1)


# Construction


def test_symbol_of_the_wrong_type() -> None:
    with pytest.raises(ArgumentTypeError, match=r"mx\.symbol\.Symbol, not str"):
        mx.Module("net")


@pytest.mark.parametrize("argument", ["data_names", "state_names", "fixed_param_names"])
def test_name_that_the_symbol_lacks(argument: str) -> None:
    with pytest.raises(
        NameMismatchError, match=f"{argument}.*`typo`.*`data`"
    ) as caught:
        mx.Module(mlp(), **{argument: ["typo"]})
    assert isinstance(caught.value, ValueError)


def test_label_name_that_the_symbol_lacks_warns() -> None:
    with pytest.warns(UserWarning, match="`typo`") as caught:
        mx.Module(mlp(), label_names=["typo"])
    assert caught[0].filename == __file__


@pytest.mark.parametrize("context", ["cpu", [mx.cpu(0), 1], 0])
def test_context_of_the_wrong_type(context: Any) -> None:
    with pytest.raises(ArgumentTypeError, match=r"mx\.cpu\(0\)"):
        mx.Module(mlp(), context=context)


def test_context_twice_or_none() -> None:
    with pytest.raises(ArgumentError, match=r"names cpu\(0\) twice"):
        mx.Module(mlp(), context=[mx.cpu(0), mx.cpu(0)])
    with pytest.raises(ArgumentError, match="empty"):
        mx.Module(mlp(), context=[])


@pytest.mark.parametrize("shares", [[1], [1, 2, 3], [0, 0], [-1, 2], [float("nan"), 1]])
def test_work_load_list_that_cannot_be(shares: list[float]) -> None:
    with pytest.raises(ArgumentError, match="work_load_list"):
        mx.Module(mlp(), context=[mx.cpu(0), mx.cpu(1)], work_load_list=shares)


@pytest.mark.parametrize(
    "context", [mx.gpu(0), mx.cpu(-1), mx.Context("tpu", 0), mx.cpu(0, worker="other")]
)
async def test_context_that_does_not_exist(context: Any) -> None:
    async with mx.Module(mlp(), context=context) as module:
        with pytest.raises((DeviceError, ValueError), match=r"gpu|-1|tpu|other"):
            await module.bind([("data", (8, 5))], [("softmax_label", (8,))])
        assert not module.binded


def test_unknown_operator_and_attribute() -> None:
    with pytest.raises(AttributeError, match="did you mean FullyConnected"):
        mx.sym.FulyConnected(mx.sym.Variable("data"), num_hidden=3)
    with pytest.raises(OperatorError, match="num_hiden"):
        mx.sym.FullyConnected(mx.sym.Variable("data"), num_hiden=3)


# Binding


@pytest.mark.parametrize(
    ("shapes", "error", "match"),
    [
        ([("dta", (8, 5))], NameMismatchError, "data_names.*dta"),
        ([("data", (8, 5)), ("more", (8, 5))], NameMismatchError, "more"),
        ([("data", np.zeros((8, 5)))], ArgumentTypeError, "tuple of integers"),
        ([("data", (8, 5.5))], ArgumentTypeError, "tuple of integers"),
        ([("data", 8)], ArgumentTypeError, "tuple of integers"),
        ([("data",)], ArgumentTypeError, "DataDesc or"),
        ([(5, (8, 5))], ArgumentTypeError, "no string"),
        ([("data", (8, 5), "floaty")], ArgumentTypeError, "dtype 'floaty'"),
        ([("data", (8, 0))], ArgumentError, "positive"),
        ([("data", ())], ArgumentError, "at least one axis"),
        ([("data", (8, 5)), ("data", (8, 5))], NameMismatchError, "`data` twice"),
        (5, ArgumentTypeError, "must be a list"),
    ],
)
async def test_data_shapes_that_cannot_be(
    shapes: Any, error: type[Exception], match: str
) -> None:
    async with mx.Module(mlp(), context=mx.reference(0)) as module:
        with pytest.raises(error, match=match):
            await module.bind(
                data_shapes=shapes, label_shapes=[("softmax_label", (8,))]
            )
        assert not module.binded
        await module.bind([("data", (8, 5))], [("softmax_label", (8,))])


async def test_batch_sizes_that_differ() -> None:
    async with mx.Module(mlp(), context=mx.reference(0)) as module:
        with pytest.raises(AssertionError, match="all data must have the same batch"):
            await module.bind([("data", (8, 5))], [("softmax_label", (7,))])


async def test_shapes_that_the_graph_contradicts() -> None:
    data = mx.sym.Variable("data")
    left = mx.sym.FullyConnected(data, num_hidden=2, name="fc")
    with mx.name.NameManager():  # automatic names count from here
        net = left + mx.sym.FullyConnected(data, num_hidden=3, name="fc_too")
    async with mx.Module(net, label_names=None, context=mx.reference(0)) as module:
        with pytest.raises(ValueError, match="_plus0"):
            await module.bind([("data", (8, 5))])


async def test_bind_arguments_that_contradict() -> None:
    async with mx.Module(mlp(), context=mx.reference(0)) as module:
        data, label = [("data", (8, 5))], [("softmax_label", (8,))]
        with pytest.raises(AssertionError, match="for_training=True"):
            await module.bind(data, label, for_training=False, inputs_need_grad=True)
        with pytest.raises(ArgumentError, match="data_shapes"):
            await module.bind()
        with pytest.raises(TypeError, match="by position and by name"):
            await module.bind(data, label, label_shapes=label)
        with pytest.raises(TypeError, match="at most 7"):
            await module.bind(data, label, True, False, False, None, "write", 1)


@pytest.mark.parametrize(
    ("grad_req", "match"),
    [
        ("wirte", "'wirte'.*write, add, null"),
        (["write"], "1 entries.*fc1_weight"),
        ({"typo": "write"}, "`typo`"),
        ({"fc1_weight": "wirte"}, "'wirte'"),
        (7, "7"),
    ],
)
async def test_grad_req_that_cannot_be(grad_req: Any, match: str) -> None:
    async with mx.Module(mlp(), context=mx.reference(0)) as module:
        with pytest.raises(ValueError, match=match):
            await module.bind(
                [("data", (8, 5))], [("softmax_label", (8,))], grad_req=grad_req
            )


async def test_shared_module_that_cannot_be(module: mx.Module) -> None:
    async with mx.open_runtime():
        other = mx.Module(mlp(), context=mx.reference(0))
        data, label = [("data", (8, 5))], [("softmax_label", (8,))]
        with pytest.raises(TypeError, match="must be a Module"):
            await other.bind(data, label, shared_module="x")  # type: ignore[arg-type]
        fresh = mx.Module(mlp(), context=mx.reference(0))
        with pytest.raises(AssertionError, match="bound and initialized"):
            await other.bind(data, label, shared_module=fresh)
        elsewhere = mx.Module(mlp(), context=mx.reference(1))
        with pytest.raises(ArgumentError, match=r"reference\(0\).*reference\(1\)"):
            await elsewhere.bind(data, label, shared_module=module)


# Parameters


async def test_parameters_that_cannot_be(module: mx.Module) -> None:
    before = await module.get_params()
    good = values(mlp())
    cases: list[tuple[dict[str, Any], type[Exception], str]] = [
        ({**good, "fc1_bias": np.zeros(3)}, ValueError, r"fc1_bias.*\(3,\).*\(7,\)"),
        ({**good, "zz": np.zeros(3)}, ValueError, 'Find name "zz" that is not in'),
        ({"fc1_bias": good["fc1_bias"]}, RuntimeError, "fc1_weight is not presented"),
        ({**good, "fc1_bias": np.array(["a"] * 7)}, ValueError, "fc1_bias.*dtype"),
    ]
    for wrong, error, match in cases:
        with pytest.raises(error, match=match):
            await module.set_params(wrong, {})
    with pytest.raises(ValueError, match='Find name "zz"'):
        await module.set_params({"zz": np.zeros(3)}, {}, allow_missing=True)
    with pytest.raises(TypeError, match="initializer"):
        await module.init_params("xavier", force_init=True)
    assert same(await module.get_params(), before)


# Optimizer


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        ({"kvstore": 5}, TypeError, "kvstore must be KVStore, str or None"),
        ({"kvstore": "lokal"}, ValueError, "unknown kvstore 'lokal'.*local"),
        ({"kvstore": "dist_sync"}, UnsupportedError, "worker processes"),
        ({"optimizer": "zzz"}, ValueError, "Cannot find optimizer zzz"),
        ({"optimizer": 5}, TypeError, "Optimizer"),
        ({"optimizer_params": {"learning_rate": float("nan")}}, ValueError, "NaN"),
        ({"optimizer_params": {"learning_rate": float("inf")}}, ValueError, "inf"),
        ({"optimizer_params": {"learning_rate": -1.0}}, ValueError, "-1"),
        ({"optimizer_params": {"wd": float("nan")}}, ValueError, "wd = NaN"),
        ({"optimizer_params": 3}, ValueError, "dict or"),
    ],
)
async def test_optimizer_that_cannot_be(
    module: mx.Module, arguments: dict[str, Any], error: type[Exception], match: str
) -> None:
    optimizer = module.optimizer
    with pytest.raises(error, match=match):
        await module.init_optimizer(force_init=True, **arguments)
    assert module.optimizer is optimizer
    await module.step(batch())


async def test_learning_rate_that_becomes_nan(module: mx.Module) -> None:
    def schedule(count: int) -> float:
        return 0.1 if count < 3 else float("nan")

    schedule.base_lr = 0.1  # type: ignore[attr-defined]
    optimizer = mx.optimizer.SGD(lr_scheduler=schedule, rescale_grad=1 / 8)
    await module.init_optimizer(optimizer=optimizer, force_init=True)
    await module.step(batch())
    await module.step(batch())
    before = await module.get_params()
    with pytest.raises(ValueError, match="nan"):
        await module.step(batch())
    assert same(await module.get_params(), before)


# Batches


class NoData:
    label: tuple[Any, ...] = ()


def wrong_batches() -> dict[str, tuple[Any, str]]:
    data, label = rows(8)
    described = [DataDesc("other", (8, 5))]
    return {
        "no data": (NoData(), "attribute `data`"),
        "too many": (DataBatch([data, data], [label]), "2 data arrays.*1: data"),
        "too few": (DataBatch([], [label]), "0 data arrays"),
        "two labels": (DataBatch([data], [label, label]), "2 label arrays"),
        "no label": (DataBatch([data]), "needs the label `softmax_label`"),
        "empty label": (DataBatch([data], []), "needs the label `softmax_label`"),
        "short label": (DataBatch([data], [label[:7]]), "7 rows.*`data` has 8"),
        "features": (DataBatch([data[:, :4]], [label]), r"`data` \(8, 4\)"),
        "strings": (DataBatch([data.astype(str)], [label]), "`data` has dtype <U"),
        "objects": (DataBatch([data.astype(object)], [label]), "dtype object"),
        "complex": (DataBatch([data + 1j], [label]), "dtype complex"),
        "ragged": (DataBatch([[[1.0, 2.0], [3.0]]], [label]), "`data` is no array"),
        "one axis": (DataBatch([data[0, 0]], [label]), "batch on axis 0"),
        "names": (
            DataBatch([data], [label], provide_data=described),
            r"provides data \['other'\].*\['data'\]",
        ),
    }


@pytest.mark.parametrize("case", wrong_batches())
async def test_batch_that_does_not_fit(module: mx.Module, case: str) -> None:
    before = await module.get_params()
    wrong, match = wrong_batches()[case]
    for call in (module.step, module.forward_backward):
        with pytest.raises(InputError, match=match) as caught:
            await call(wrong)
        assert isinstance(caught.value, ValueError)
    assert same(await module.get_params(), before)
    await module.step(batch())
    assert not same(await module.get_params(), before)


async def test_sparse_data_is_refused(module: mx.Module) -> None:
    scipy_sparse = pytest.importorskip("scipy.sparse")
    data, label = rows(8)
    wrong = DataBatch([scipy_sparse.csr_matrix(data)], [label])
    with pytest.raises(InputError, match=r"`data` is a sparse matrix.*toarray"):
        await module.forward(wrong)


async def test_training_without_bound_labels() -> None:
    async with mx.Module(mlp(), context=mx.reference(0)) as module:
        await module.bind([("data", (8, 5))])
        await module.init_params()
        with pytest.raises(InputError, match="bound without it"):
            await module.forward(batch(), is_train=True)


async def test_head_gradients_that_do_not_fit() -> None:
    net = mx.sym.FullyConnected(mx.sym.Variable("data"), num_hidden=2, name="fc")
    async with mx.Module(net, label_names=None, context=mx.reference(0)) as module:
        await module.bind([("data", (4, 3))])
        await module.init_params()
        await module.forward(DataBatch([np.ones((4, 3), np.float32)]))
        with pytest.raises(RuntimeError, match="fc"):
            await module.backward()
        with pytest.raises(InputError, match="2 arrays for 1 outputs"):
            await module.backward([np.ones((4, 2)), np.ones((4, 2))])
        with pytest.raises(ValueError, match="fc_output"):
            await module.backward(np.ones((4, 3)))
        await module.backward(np.ones((4, 2), np.float32))
        gradients = await module.get_grads()
        assert (gradients["fc_bias"] == 4).all()


# Loops


async def test_fit_arguments_that_cannot_be(module: mx.Module) -> None:
    train = mx.io.NDArrayIter(*rows(16), batch_size=8)
    with pytest.raises(AssertionError, match="please specify number of epochs"):
        await module.fit(train)
    with pytest.raises(ArgumentError, match="in_flight"):
        await module.fit(train, num_epoch=1, in_flight=3)
    with pytest.raises(TypeError, match="batch_end_callback"):
        await module.fit(train, num_epoch=1, batch_end_callback=[5])
    with pytest.raises(AssertionError, match="acuracy is not registered"):
        await module.fit(train, num_epoch=1, eval_metric="acuracy")
    with pytest.raises(TypeError, match="no iterator of batches"):
        await module.fit(5, num_epoch=1)


async def test_predict_of_something_else(module: mx.Module) -> None:
    with pytest.raises(ValueError, match="eval_data"):
        await module.predict(5)


class Failing(mx.io.DataIter):
    """Raises at batch `k`."""

    def __init__(self, k: int) -> None:
        super().__init__(8)
        self.provide_data = [DataDesc("data", (8, 5))]
        self.provide_label = [DataDesc("softmax_label", (8,))]
        self.k = k
        self.given = 0

    async def next(self) -> DataBatch:
        await trio.lowlevel.checkpoint()
        if self.given == self.k:
            raise OSError(f"disk failed at batch {self.k}")
        self.given += 1
        return batch(8, self.given)

    async def reset(self) -> None:
        self.given = 0


@pytest.mark.parametrize("in_flight", [1, 2])
@pytest.mark.parametrize("k", [0, 1, 2, 3])
async def test_iterator_that_raises_at_batch_k(k: int, in_flight: int) -> None:
    """The error arrives as it was raised; the batches before it count in full."""
    seen: list[int] = []
    async with mx.Module(mlp(), context=mx.reference(0)) as module:
        await ready(module, learning_rate=0.1)
        with pytest.raises(OSError, match=f"batch {k}"):
            await module.fit(
                Failing(k),
                num_epoch=1,
                batch_end_callback=lambda param: seen.append(param.nbatch),
                in_flight=in_flight,
            )
        assert seen == list(range(k))
        after = await module.get_params()
        metric = mx.metric.create("acc")
        with pytest.raises(OSError, match=f"batch {k}"):
            await module.score(Failing(k), metric, in_flight=in_flight)
        assert metric.num_inst == 8 * k
    async with mx.Module(mlp(), context=mx.reference(0)) as other:
        await ready(other, learning_rate=0.1)
        for seed in range(1, k + 1):
            await other.step(batch(8, seed))
        assert same(await other.get_params(), after)


@pytest.mark.parametrize("in_flight", [1, 2])
async def test_batch_that_does_not_fit_is_named(
    module: mx.Module, in_flight: int
) -> None:
    """The error says which batch it was; the batches before it count in full."""
    wrong = DataBatch([batch().data[0][:, :4]], batch().label)
    described = {
        "provide_data": [DataDesc("data", (8, 5))],
        "provide_label": [DataDesc("softmax_label", (8,))],
    }

    def source() -> mx.io.BatchIterator:
        return mx.io.as_async([batch(), batch(), wrong, batch()], **described)

    seen: list[int] = []
    with pytest.raises(InputError, match="does not fit") as caught:
        await module.fit(
            source(),
            num_epoch=1,
            batch_end_callback=lambda param: seen.append(param.nbatch),
            in_flight=in_flight,
        )
    assert caught.value.__notes__ == ["at batch 2 of epoch 0, counted from 0"]
    assert seen == [0, 1]
    metric = mx.metric.create("acc")
    with pytest.raises(InputError) as caught:
        await module.score(source(), metric, in_flight=in_flight)
    assert caught.value.__notes__ == ["at batch 2, counted from 0"]
    assert metric.num_inst == 16
    with pytest.raises(InputError) as caught:
        await module.predict(source(), in_flight=in_flight)
    assert caught.value.__notes__ == ["at batch 2, counted from 0"]


async def test_empty_iterator(module: mx.Module) -> None:
    def empty() -> mx.io.BatchIterator:
        return mx.io.as_async(
            [],
            provide_data=[DataDesc("data", (8, 5))],
            provide_label=[DataDesc("softmax_label", (8,))],
        )

    with pytest.raises(ArgumentError, match="gave no batch in epoch 0"):
        await module.fit(empty(), num_epoch=1)
    [(name, value)] = await module.score(empty(), "acc")
    assert name == "accuracy"
    assert np.isnan(value)
    assert await module.predict(empty()) == []
    assert await module.predict_every_batch(empty()) == []


async def test_labels_that_the_module_does_not_name_warn() -> None:
    async with mx.Module(mlp(), context=mx.reference(0)) as module:
        with pytest.warns(UserWarning, match="don't match names") as caught:
            await module.bind([("data", (8, 5))], [("other", (8,))])
        assert caught[0].filename == __file__
        await module.init_params()
        with pytest.raises(InputError, match="bound without it"):
            await module.forward(batch())
