"""The state machine: what is legal when, and what the errors say."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

import asyncmod as mx
from asyncmod.errors import (
    AsyncmodError,
    ClosedError,
    ModuleStateError,
    UnsupportedError,
)
from tests.asyncmod.module.nets import batch, mlp, ready

Call = Callable[[mx.Module], Awaitable[Any]]

NEED_BIND: dict[str, Call] = {
    "init_params": lambda m: m.init_params(),
    "set_params": lambda m: m.set_params({}, {}),
    "get_params": lambda m: m.get_params(),
    "load_params": lambda m: m.load_params("nowhere"),
    "forward": lambda m: m.forward(batch()),
    "backward": lambda m: m.backward(),
    "update": lambda m: m.update(),
    "step": lambda m: m.step(batch()),
    "reshape": lambda m: m.reshape([("data", (4, 5))]),
    "init_optimizer": lambda m: m.init_optimizer(),
    "get_outputs": lambda m: m.get_outputs(),
    "get_grads": lambda m: m.get_grads(),
    "zero_grad": lambda m: m.zero_grad(),
    "score": lambda m: m.score([], "acc"),
    "predict": lambda m: m.predict([]),
}
NEED_PARAMS = {
    name: call
    for name, call in NEED_BIND.items()
    if name in ("forward", "step", "init_optimizer", "score", "predict", "get_params")
}


async def bound(**options: Any) -> mx.Module:
    module = mx.Module(mlp(), context=mx.reference(0))
    await module.bind([("data", (8, 5))], [("softmax_label", (8,))], **options)
    return module


@pytest.mark.parametrize("name", NEED_BIND)
async def test_calls_before_bind(name: str) -> None:
    async with mx.open_runtime():
        module = mx.Module(mlp(), context=mx.reference(0))
        with pytest.raises(ModuleStateError, match=r"await mod\.bind") as caught:
            await NEED_BIND[name](module)
        assert isinstance(caught.value, AssertionError)


@pytest.mark.parametrize("name", ["data_shapes", "label_shapes", "output_shapes"])
async def test_shapes_before_bind(name: str) -> None:
    module = mx.Module(mlp())
    with pytest.raises(AssertionError, match=f"`{name}` needs a module that is bound"):
        getattr(module, name)


@pytest.mark.parametrize("name", NEED_PARAMS)
async def test_calls_before_init_params(name: str) -> None:
    async with mx.open_runtime():
        module = await bound()
        with pytest.raises(ModuleStateError, match=r"await mod\.init_params"):
            await NEED_PARAMS[name](module)


@pytest.mark.parametrize("name", ["update", "step", "save_optimizer_states"])
async def test_calls_before_init_optimizer(name: str) -> None:
    async with mx.open_runtime():
        module = await ready(mx.Module(mlp(), context=mx.reference(0)))
        argument = {"step": [batch()], "save_optimizer_states": ["x"]}.get(name, [])
        with pytest.raises(ModuleStateError, match=r"await mod\.init_optimizer"):
            await getattr(module, name)(*argument)


async def test_results_before_forward() -> None:
    async with mx.open_runtime():
        module = await ready(mx.Module(mlp(), context=mx.reference(0)))
        with pytest.raises(ModuleStateError, match="needs a forward before it"):
            await module.get_outputs()
        with pytest.raises(ModuleStateError, match="forward in training mode"):
            await module.backward()
        await module.forward(batch(), is_train=False)
        with pytest.raises(ModuleStateError, match="forward in training mode"):
            await module.backward()
        with pytest.raises(ModuleStateError, match="inputs_need_grad=True"):
            await module.get_input_grads()


async def test_training_calls_on_a_module_bound_for_inference() -> None:
    async with mx.open_runtime():
        module = await bound(for_training=False)
        await module.init_params(mx.init.Uniform())
        await module.init_optimizer()
        await module.forward(batch())
        for call in (module.backward(), module.update(), module.step(batch())):
            with pytest.raises(ModuleStateError, match="bound for training"):
                await call


async def test_flags_and_properties() -> None:
    async with mx.open_runtime():
        module = mx.Module(mlp(), context=mx.reference(0))
        assert module.data_names == ["data"]
        assert module.label_names == ["softmax_label"]
        assert module.output_names == ["softmax_output"]
        flags = (
            "binded",
            "for_training",
            "inputs_need_grad",
            "params_initialized",
            "optimizer_initialized",
        )
        assert not any(getattr(module, flag) for flag in flags)
        await module.bind(
            [("data", (8, 5))], [("softmax_label", (8,))], inputs_need_grad=True
        )
        assert module.binded
        assert module.for_training
        assert module.inputs_need_grad
        assert not module.params_initialized
        assert module.data_shapes == [("data", (8, 5))]
        assert module.label_shapes == [("softmax_label", (8,))]
        assert module.output_shapes == [("softmax_output", (8, 3))]
        await module.init_params()
        await module.init_optimizer()
        assert module.params_initialized
        assert module.optimizer_initialized
        assert module.symbol.list_outputs() == ["softmax_output"]


@pytest.mark.parametrize("labels", [None, []])
async def test_label_shapes_is_empty_without_labels(labels: Any) -> None:
    async with mx.open_runtime():
        module = mx.Module(mlp(), context=mx.reference(0))
        await module.bind([("data", (8, 5))], labels, for_training=False)
        assert module.label_shapes == []


async def test_label_shapes_is_empty_when_not_training() -> None:
    async with mx.open_runtime():
        module = await bound(for_training=False)
        assert module.label_shapes == []


async def test_closed_module() -> None:
    async with mx.Module(mlp(), context=mx.reference(0)) as module:
        await ready(module)
    assert not module.binded
    await module.aclose()
    for call in NEED_BIND.values():
        with pytest.raises(ClosedError, match="closed"):
            await call(module)
    with pytest.raises(ClosedError):
        await module.bind([("data", (8, 5))])
    with pytest.raises(ClosedError):
        await module.__aenter__()


async def test_second_init_is_ignored_unless_forced() -> None:
    class Lines:
        def __init__(self) -> None:
            self.lines: list[str] = []

        def info(self, event: str, *args: Any) -> None:
            self.lines.append(event % args)

        warning = info

    async with mx.open_runtime():
        log = Lines()
        module = mx.Module(mlp(), context=mx.reference(0), logger=log)
        await ready(module, learning_rate=0.5)
        before = await module.get_params()
        with pytest.warns(UserWarning, match="already initialized") as caught:
            await module.init_params(mx.init.One())
        assert caught[0].filename == __file__
        await module.init_optimizer(optimizer="sgd")
        await module.bind([("data", (4, 5))])
        assert module.data_shapes == [("data", (8, 5))]
        assert module.optimizer is not None
        assert module.optimizer.lr == 0.5
        assert log.lines == [
            "optimizer already initialized, ignoring...",
            "Already bound, ignoring bind()",
        ]
        await module.init_params(mx.init.One(), force_init=True)
        after, _ = await module.get_params()
        assert (after["fc1_weight"] == 1).all()
        assert not (before[0]["fc1_weight"] == 1).all()
        await module.init_optimizer(
            optimizer_params={"learning_rate": 2.0}, force_init=True
        )
        assert module.optimizer.lr == 2.0


@pytest.mark.parametrize(
    "options",
    [{"compression_params": {"type": "2bit"}}],
)
def test_what_is_not_supported_says_so(options: dict[str, Any]) -> None:
    with pytest.raises(UnsupportedError, match="not supported"):
        mx.Module(mlp(), **options)


def test_every_error_is_one_of_ours() -> None:
    for name in mx.errors.__all__:
        error = getattr(mx.errors, name)
        assert issubclass(error, AsyncmodError) or name == "StopTraining"
        assert name in (mx.errors.__doc__ or "")
