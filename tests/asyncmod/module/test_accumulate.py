"""`fit(accumulate=k)`: an update by k batches is that by one k times as large."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import asyncmod as mx
from asyncmod.errors import ArgumentError, StopTraining, UnsupportedError
from tests.asyncmod.module.nets import aux_values, mlp, mlp_bn, rows, values

WHERE = {
    "cpu": [mx.cpu(0)],
    "two of cpu": [mx.cpu(0), mx.cpu(1)],
    "two of reference": [mx.reference(0), mx.reference(1)],
    "two memories": [mx.reference(0), mx.Context("simulated", 1)],
}
ADAM = {"learning_rate": 0.05, "wd": 0.01}


class Counted(mx.optimizer.Optimizer):
    """Momentum in Python."""

    def create_state(self, index: Any, weight: Any) -> Any:
        return np.zeros_like(weight), 0

    def update(self, index: Any, weight: Any, grad: Any, state: Any) -> None:
        self._update_count(index)
        step, _ = state
        step *= 0.9
        step -= self._get_lr(index) * self.rescale_grad * grad
        weight += step


def reader(batch_size: int, count: int = 24) -> mx.io.NDArrayIter:
    data, label = rows(count)
    return mx.io.NDArrayIter(data, label, batch_size, label_name="softmax_label")


def halves(data: Any) -> Any:
    """Of float16; iterators take plain arrays as float32, as MXNet does."""
    return mx.nd.array(data, dtype=np.float16)


async def trained(
    batch_size: int,
    where: str | list[mx.Context] = "cpu",
    net: mx.symbol.Symbol | None = None,
    count: int = 24,
    **options: Any,
) -> tuple[dict[str, Any], Any]:
    """Parameters after two epochs, and the module's optimizer."""
    net = net or mlp()
    options = {"optimizer": "adam", "optimizer_params": ADAM} | options
    context = WHERE[where] if isinstance(where, str) else where
    async with mx.Module(net, context=context) as module:
        await module.fit(
            reader(batch_size, count),
            num_epoch=2,
            arg_params=values(net),
            aux_params=aux_values(net),
            **options,
        )
        arguments, _ = await module.get_params()
        return arguments, module.optimizer


def assert_close(got: dict[str, Any], expected: dict[str, Any]) -> None:
    for name, value in expected.items():
        np.testing.assert_allclose(got[name], value, rtol=2e-5, atol=2e-6, err_msg=name)


@pytest.mark.parametrize("in_flight", [1, 2])
@pytest.mark.parametrize("where", WHERE)
async def test_an_update_by_several_batches_is_that_by_a_large_one(
    where: str, in_flight: int
) -> None:
    large, _ = await trained(12, where)
    got, optimizer = await trained(4, where, accumulate=3, in_flight=in_flight)
    again, _ = await trained(4, where, accumulate=3, in_flight=in_flight)
    assert_close(got, large)
    assert optimizer.num_update == 4
    for name, value in got.items():
        np.testing.assert_array_equal(again[name], value)
    small, _ = await trained(4, where)
    assert abs(small["fc1_weight"] - large["fc1_weight"]).max() > 1e-3


@pytest.mark.parametrize("multi_precision", [True, False])
@pytest.mark.parametrize("where", WHERE)
async def test_float16_gradients_add_up_in_float32(
    where: str, multi_precision: bool
) -> None:
    """Many small ones count beside a few large ones."""
    start = {n: v.astype(np.float16) for n, v in values(mlp()).items()}
    data, label = rows(48)
    data = (data * np.where(np.arange(48) < 4, 60, 0.02)[:, None]).astype(np.float16)
    async with mx.Module(mlp(), context=WHERE[where]) as module:
        await module.fit(
            mx.io.NDArrayIter(halves(data), label, 4),
            num_epoch=1,
            arg_params=start,
            optimizer_params={
                "learning_rate": 8.0,
                "multi_precision": multi_precision,
            },
            accumulate=12,
        )
        got, _ = await module.get_params()
    size = 4 // len(WHERE[where])  # what a device gets of a batch
    total = {name: np.zeros(value.shape) for name, value in start.items()}
    async with mx.Module(mlp(), context=mx.reference(0)) as module:
        await module.bind(
            [mx.io.DataDesc("data", (size, 5), np.float16)],
            [("softmax_label", (size,))],
        )
        await module.init_params(arg_params=start)
        for i in range(0, 48, size):
            part = mx.io.DataBatch([data[i : i + size]], [label[i : i + size]])
            await module.forward_backward(part)
            for name, value in (await module.get_grads()).items():
                total[name] += value
    for name, value in start.items():
        expected = value - total[name] * 2 / 12
        step = np.spacing(np.abs(expected).astype(np.float16)).astype(np.float64)
        assert (np.abs(got[name] - expected) <= 0.51 * step).all(), name


async def test_an_optimizer_in_python_gets_gradients_of_the_weight_s_type() -> None:
    seen: set[Any] = set()

    class Watching(Counted):
        def update(self, index: Any, weight: Any, grad: Any, state: Any) -> None:
            seen.add((weight.dtype, grad.dtype))

    data, label = rows(8)
    async with mx.Module(mlp()) as module:
        await module.fit(
            mx.io.NDArrayIter(halves(data), label, 4),
            num_epoch=1,
            optimizer=Watching(rescale_grad=1 / 4),
            accumulate=2,
        )
    assert seen == {(np.dtype(np.float16), np.dtype(np.float16))}


@pytest.mark.parametrize("where", WHERE)
async def test_an_optimizer_in_python_accumulates(where: str) -> None:
    def optimizer(batch_size: int) -> Counted:
        return Counted(learning_rate=0.1, rescale_grad=1 / batch_size)

    large, _ = await trained(12, where, optimizer=optimizer(12))
    # Its own rescale_grad is that of one batch, too.
    got, made = await trained(4, where, optimizer=optimizer(4), accumulate=3)
    assert_close(got, large)
    assert made.num_update == 4


@pytest.mark.parametrize("where", ["cpu", "two of reference"])
async def test_what_is_left_at_the_end_of_an_epoch_is_a_mean_as_well(
    where: str,
) -> None:
    """24 rows by 3 batches of 5, and by the 2 that are left."""

    class Recorded(mx.lr_scheduler.LRScheduler):
        def __call__(self, num_update: int) -> float:
            return 0.1

    options: dict[str, Any] = {
        "optimizer": "sgd",
        "optimizer_params": {"lr_scheduler": Recorded()},
    }
    got, optimizer = await trained(5, where, accumulate=3, count=25, **options)
    assert optimizer.num_update == 4
    data, label = rows(25)
    net = mlp()
    async with mx.Module(net, context=WHERE[where]) as module:
        await module.bind([("data", (5, 5))], [("softmax_label", (5,))])
        await module.init_params(arg_params=values(net))
        await module.init_optimizer(optimizer_params={"learning_rate": 0.1})
        for _ in range(2):
            for part in (slice(0, 15), slice(15, 25)):
                assert module.optimizer is not None
                module.optimizer.rescale_grad = 1 / (part.stop - part.start)
                await module.step(mx.io.DataBatch([data[part]], [label[part]]))
        expected, _ = await module.get_params()
    assert_close(got, expected)


async def test_statistics_move_with_every_batch() -> None:
    """As in a bare backward; parameters move with the update."""
    net = mlp_bn()

    async def statistics(**options: Any) -> Any:
        async with mx.Module(net, context=mx.cpu(0)) as module:
            await module.fit(
                reader(4),
                num_epoch=1,
                arg_params=values(net),
                aux_params=aux_values(net),
                optimizer_params={"learning_rate": 0.0},
                **options,
            )
            _, auxiliaries = await module.get_params()
            return auxiliaries

    plain, accumulated = await statistics(), await statistics(accumulate=3)
    for name, value in plain.items():
        np.testing.assert_array_equal(accumulated[name], value)
        assert abs(value - aux_values(net)[name]).max() > 1e-3


async def test_schedules_count_updates_and_callbacks_batches() -> None:
    seen: list[int] = []

    def schedule(num_update: int) -> float:
        return 0.1 / num_update

    def batch_end(parameter: mx.callback.BatchEndParam) -> None:
        seen.append(parameter.nbatch)

    options: dict[str, Any] = {
        "optimizer": "sgd",
        "optimizer_params": {"lr_scheduler": schedule},
    }
    large, _ = await trained(12, **options)
    got, _ = await trained(4, accumulate=3, batch_end_callback=batch_end, **options)
    assert_close(got, large)
    assert seen == [0, 1, 2, 3, 4, 5] * 2


@pytest.mark.parametrize("where", ["cpu", "two of reference"])
async def test_stopping_updates_by_what_there_is(where: str) -> None:
    def batch_end(parameter: mx.callback.BatchEndParam) -> None:
        if parameter.nbatch == 1:
            raise StopTraining

    options: dict[str, Any] = {"in_flight": 1, "batch_end_callback": batch_end}
    _, optimizer = await trained(4, where, accumulate=3, **options)
    assert optimizer.num_update == 1


async def test_worker_processes_give_the_same_bits() -> None:
    processes = [mx.cpu(i, worker="process") for i in range(2)]
    expected, _ = await trained(5, "two of cpu", accumulate=3, count=25)
    got, _ = await trained(5, processes, accumulate=3, count=25)
    for name, value in expected.items():
        np.testing.assert_array_equal(got[name], value)


async def test_a_failed_group_leaves_nothing_to_the_next() -> None:
    net, (data, label) = mlp(), rows(24)
    good = reader(4)

    class Broken:
        """Two batches, then an error."""

        provide_data, provide_label = good.provide_data, good.provide_label
        batch_size = 4

        def __iter__(self) -> Any:
            for i in range(2):
                part = slice(4 * i, 4 * i + 4)
                yield mx.io.DataBatch([100 * data[part]], [label[part]])
            raise OSError("the disk is gone")

        def reset(self) -> None:
            pass

    expected, _ = await trained(4, accumulate=3)
    async with mx.Module(net, context=WHERE["cpu"]) as module:
        options: dict[str, Any] = {
            "optimizer": "adam",
            "optimizer_params": ADAM,
            "accumulate": 3,
        }
        with pytest.raises(OSError, match="disk"):
            await module.fit(Broken(), num_epoch=1, arg_params=values(net), **options)
        before, _ = await module.get_params()
        for name, value in values(net).items():
            np.testing.assert_array_equal(before[name], value)
        await module.fit(good, num_epoch=2, **options)
        got, _ = await module.get_params()
    for name, value in expected.items():
        np.testing.assert_array_equal(got[name], value)


async def test_chains_accumulate() -> None:
    first = mx.sym.FullyConnected(mx.sym.Variable("data"), num_hidden=7, name="fc1")
    second = mx.sym.Activation(mx.sym.Variable("data"), act_type="relu")
    second = mx.sym.FullyConnected(second, num_hidden=3, name="fc2")
    second = mx.sym.SoftmaxOutput(second, name="softmax")

    async def run(batch_size: int, **options: Any) -> dict[str, Any]:
        chain = mx.SequentialModule()
        chain.add(mx.Module(first, label_names=[], context=mx.cpu(0)))
        chain.add(
            mx.Module(second, context=[mx.reference(0), mx.reference(1)]),
            take_labels=True,
            auto_wiring=True,
        )
        async with chain:
            await chain.fit(
                reader(batch_size, 28),
                num_epoch=2,
                arg_params=values(mlp()),
                optimizer_params={"learning_rate": 0.1, "momentum": 0.9},
                **options,
            )
            arguments, _ = await chain.get_params()
            return arguments

    assert_close(await run(7, accumulate=2), await run(14))


async def test_buckets_accumulate_together() -> None:
    """Of each bucket's parameters what it has; the others get nothing from it."""

    def generate(key: int) -> Any:
        net = mx.sym.Variable("data")
        for layer in range(key):
            net = mx.sym.FullyConnected(net, num_hidden=5, name=f"fc{layer}")
        return mx.sym.SoftmaxOutput(net, name="softmax"), ["data"], ["softmax_label"]

    data, label = rows(8)
    order = [2, 1, 1, 1, 2]
    shapes = {"data": (8, 5)}
    start = values(generate(2)[0], **shapes)

    class Buckets:
        provide_data = (mx.io.DataDesc("data", (8, 5)),)
        provide_label = (mx.io.DataDesc("softmax_label", (8,)),)
        batch_size = 8

        def __iter__(self) -> Any:
            for key in order:
                yield mx.io.DataBatch(
                    [data],
                    [label],
                    bucket_key=key,
                    provide_data=self.provide_data,
                    provide_label=self.provide_label,
                )

        def reset(self) -> None:
            pass

    async with mx.BucketingModule(generate, 2, context=mx.cpu(0)) as module:
        await module.fit(
            Buckets(),
            num_epoch=1,
            arg_params=start,
            optimizer_params={"learning_rate": 0.1},
            accumulate=3,
        )
        got, _ = await module.get_params()

    expected = {name: value.copy() for name, value in start.items()}
    for group in (order[:3], order[3:]):
        total = {name: np.zeros_like(value) for name, value in start.items()}
        for key in group:
            net = generate(key)[0]
            arguments = {n: expected[n] for n in net.list_arguments() if n in expected}
            feeds = {"data": data, "softmax_label": label}
            requests = dict.fromkeys(arguments, "write")
            async with mx.bind(net, arguments | feeds, grad_req=requests) as executor:
                await executor.forward(is_train=True)
                for name, gradient in (await executor.backward()).items():
                    total[name] += gradient
        for name, value in total.items():
            expected[name] -= 0.1 / 8 / len(group) * value
    assert_close(got, expected)


async def test_what_cannot_accumulate_says_so() -> None:
    async with mx.Module(mlp(), context=mx.cpu(0)) as module:
        await module.bind([("data", (4, 5))], [("softmax_label", (4,))], grad_req="add")
        with pytest.raises(ArgumentError, match=r"fc1_weight.*grad_req='add'"):
            await module.fit(reader(4), num_epoch=1, accumulate=2)
        for wrong in (0, -1, 1.5):
            with pytest.raises(ArgumentError, match="`accumulate`"):
                await module.fit(reader(4), num_epoch=1, accumulate=wrong)  # type: ignore[arg-type]
    with pytest.raises(UnsupportedError, match="`accumulate`"):
        mx.BaseModule().inside.check_accumulation()
