"""Values of parameters: made, given, read, saved and loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import asyncmod as mx
from asyncmod.interop.mxnet import InvalidParameterFileError, save_params
from tests.asyncmod.module.nets import (
    aux_values,
    batch,
    mlp,
    mlp_bn,
    ready,
    same,
    values,
)

SETTINGS = {"learning_rate": 0.5, "momentum": 0.9}
DATA, LABEL = [("data", (8, 5))], [("softmax_label", (8,))]
TWO = [mx.reference(0), mx.reference(1)]


async def test_initializer_goes_by_name_and_attributes() -> None:
    async with mx.Module(mlp_bn(), context=TWO) as module:
        await module.bind(DATA, LABEL)
        await module.init_params(mx.init.Constant(3))
        arguments, auxiliaries = await module.get_params()
        assert (arguments["fc1_weight"] == 3).all()
        assert (arguments["fc1_bias"] == 0).all()
        assert (arguments["bn1_gamma"] == 1).all()
        assert (auxiliaries["bn1_moving_mean"] == 0).all()
        assert (auxiliaries["bn1_moving_var"] == 1).all()


async def test_order_of_initialization_is_by_name() -> None:
    order: list[str] = []

    class Noting(mx.init.Initializer):
        def __call__(self, desc: Any, arr: Any) -> None:
            order.append(str(desc))
            assert isinstance(desc, mx.init.InitDesc)

    async with mx.Module(mlp_bn(), context=mx.reference(0)) as module:
        await module.bind(DATA, LABEL)
        await module.init_params(Noting())
    names = ["bn1_beta", "bn1_gamma", "fc1_bias", "fc1_weight", "fc2_bias"]
    names += ["fc2_weight", "bn1_moving_mean", "bn1_moving_var"]
    assert order == names


async def test_variable_init_beats_the_default() -> None:
    net = mx.sym.FullyConnected(
        mx.sym.Variable("data"),
        weight=mx.sym.Variable("w_weight", init=mx.init.One()),
        num_hidden=2,
        name="fc",
    )
    async with mx.Module(net, label_names=None, context=mx.reference(0)) as module:
        await module.bind(DATA)
        await module.init_params(mx.init.Zero())
        assert ((await module.get_params())[0]["w_weight"] == 1).all()


async def test_missing_and_extra_parameters() -> None:
    """MXNet's matrix of allow_missing and allow_extra."""
    good = values(mlp())
    missing = {name: good[name] for name in good if name != "fc2_bias"}
    extra = {**good, "zz": np.zeros(3)}
    async with mx.Module(mlp(), context=TWO) as module:
        await module.bind(DATA, LABEL)
        await module.set_params(good, {})
        await module.set_params(missing, {}, allow_missing=True)
        await module.set_params(extra, {}, allow_extra=True)
        assert same((await module.get_params())[0], good)
        with pytest.raises(RuntimeError):
            await module.set_params(missing, {}, allow_missing=False)
        for allow_missing in (True, False):
            with pytest.raises(ValueError, match="zz"):
                await module.set_params(extra, {}, allow_missing, allow_extra=False)
        changed = {"fc2_bias": good["fc2_bias"] + 1}
        await module.set_params(changed, None, allow_missing=True)
        now, _ = await module.get_params()
        assert same(now["fc2_bias"], changed["fc2_bias"])
        assert same(now["fc1_weight"], good["fc1_weight"])
        await module.set_params(good, {}, force_init=True)
        with pytest.warns(UserWarning, match="already initialized"):
            await module.set_params(changed, {}, allow_missing=True, force_init=False)
        assert same((await module.get_params())[0], good)


async def test_get_params_is_current_after_each_call() -> None:
    async with mx.Module(mlp_bn(), context=mx.reference(0)) as module:
        await ready(module, **SETTINGS)
        seen = [await module.get_params()]
        await module.forward(batch())
        assert same(await module.get_params(), seen[0])
        await module.backward()  # commits the running statistics
        seen.append(await module.get_params())
        assert same(seen[1][0], seen[0][0])
        assert not same(seen[1][1], seen[0][1])
        await module.update()
        seen.append(await module.get_params())
        assert not same(seen[2][0], seen[1][0])
        assert same(seen[2][1], seen[1][1])


async def test_values_are_copied_and_cast() -> None:
    async with mx.Module(mlp(), context=mx.cpu(0)) as module:
        await module.bind(DATA, LABEL)
        given: Any = {n: v.astype(np.float64) for n, v in values(mlp()).items()}
        await module.set_params(given, {})
        kept = {n: v.astype(np.float32) for n, v in given.items()}
        for array in given.values():
            array[...] = 5
        read, _ = await module.get_params()
        assert same(read, kept)
        assert read["fc1_weight"].dtype == np.float32


async def test_replicas_meet_at_the_end_of_an_epoch() -> None:
    """Running statistics differ between devices, and are averaged by fit."""
    async with mx.Module(mlp_bn(), context=TWO) as module:
        await ready(module, **SETTINGS)
        await module.step(batch())
        group = module.core.need_executors("test").first.group
        left, right = await group.read_device_auxiliaries()
        assert not same(left, right)
        source = mx.io.NDArrayIter(batch().data[0], batch().label[0], 8)  # type: ignore[index]
        await module.fit(source, num_epoch=1)
        left, right = await group.read_device_auxiliaries()
        assert same(left, right)


@pytest.mark.parametrize("context", [mx.cpu(0), TWO])
async def test_save_and_load_parameters(context: Any, tmp_path: Path) -> None:
    async with mx.Module(mlp_bn(), context=context) as module:
        await ready(module, **SETTINGS)
        await module.step(batch())
        before = await module.get_params()
        await module.save_params(tmp_path / "net.params")
        await module.step(batch())
        await module.load_params(tmp_path / "net.params")
        assert same(await module.get_params(), before)
    read = mx.nd.load(tmp_path / "net.params")
    assert isinstance(read, dict)
    assert set(read) == {f"arg:{n}" for n in before[0]} | {
        f"aux:{n}" for n in before[1]
    }


async def test_files_that_hold_no_parameters(tmp_path: Path) -> None:
    garbage = tmp_path / "garbage.params"
    garbage.write_bytes(b"not parameters at all")
    unnamed = tmp_path / "unnamed.params"
    mx.nd.save(unnamed, [np.zeros(3, np.float32)])
    keys = tmp_path / "keys.params"
    save_params(keys, {"fc1_weight": np.zeros((7, 5), np.float32)})
    async with mx.Module(mlp(), context=mx.reference(0)) as module:
        await ready(module)
        before = await module.get_params()
        for path in (garbage, unnamed, keys):
            with pytest.raises(OSError, match=path.name) as caught:
                await module.load_params(path)
            assert isinstance(caught.value, InvalidParameterFileError)
        with pytest.raises(FileNotFoundError):
            await module.load_params(tmp_path / "nowhere.params")
        assert same(await module.get_params(), before)


@pytest.mark.parametrize("context", [mx.cpu(0), TWO])
async def test_checkpoint_with_optimizer_states(context: Any, tmp_path: Path) -> None:
    """A loaded module goes on as if it had never been saved."""
    prefix = tmp_path / "net"
    async with mx.Module(mlp_bn(), context=context) as module:
        await ready(module, **SETTINGS)
        for seed in range(3):
            await module.step(batch(8, seed))
        await module.save_checkpoint(prefix, 7, save_optimizer_states=True)
        saved = await module.get_params()
        for name in ("net-symbol.json", "net-0007.params", "net-0007.states"):
            assert (tmp_path / name).exists()
        # Devices keep statistics of their own; a file holds their mean.
        await module.set_params(*saved)
        await module.step(batch(8, 9))
        after = await module.get_params()
    loaded = await mx.Module.load(prefix, 7, True, context=context)
    assert loaded.params_initialized
    assert not loaded.binded
    assert same(await loaded.get_params(), saved)
    async with loaded:
        await loaded.bind(DATA, LABEL)
        await loaded.init_optimizer(optimizer_params=SETTINGS)
        assert loaded.optimizer is not None
        assert loaded.optimizer.num_update == 3
        await loaded.step(batch(8, 9))
        assert same(await loaded.get_params(), after)
    symbol, arguments, auxiliaries = mx.load_checkpoint(prefix, 7)
    assert symbol.tojson() == mlp_bn().tojson()
    assert same([arguments, auxiliaries], list(saved))


async def test_settings_of_a_resumed_training_are_those_given_anew(
    tmp_path: Path,
) -> None:
    """Only counts and states come from the file, as in MXNet."""
    first = mx.lr_scheduler.FactorScheduler(2, 0.5, base_lr=0.8)
    async with mx.Module(mlp(), context=mx.reference(0)) as module:
        await ready(module)
        await module.init_optimizer(
            optimizer_params={"momentum": 0.9, "lr_scheduler": first}
        )
        for _ in range(5):
            await module.step(batch())
        await module.save_checkpoint(tmp_path / "net", 1, save_optimizer_states=True)
    for schedule, rate in (
        (None, 0.1),
        (mx.lr_scheduler.FactorScheduler(3, 0.1, base_lr=0.1), 0.01),
    ):
        resumed = await mx.Module.load(tmp_path / "net", 1, True, context=mx.cpu(0))
        async with resumed:
            await resumed.bind([("data", (4, 5))], [("softmax_label", (4,))])
            settings = {"learning_rate": 0.1, "momentum": 0.5}
            await resumed.init_optimizer(
                optimizer_params={**settings, "lr_scheduler": schedule}
            )
            optimizer = resumed.optimizer
            assert optimizer is not None
            assert optimizer.rescale_grad == 1 / 4
            assert optimizer.learning_rate == pytest.approx(rate)
            assert optimizer.num_update == 5


async def test_a_loaded_module_can_be_fitted(tmp_path: Path) -> None:
    mx.save_checkpoint(
        tmp_path / "net", 0, mlp_bn(), values(mlp_bn()), aux_values(mlp_bn())
    )
    loaded = await mx.Module.load(tmp_path / "net", 0, context=mx.reference(0))
    source = mx.io.NDArrayIter(batch().data[0], batch().label[0], 8)  # type: ignore[index]
    async with loaded:
        await loaded.fit(source, num_epoch=1, optimizer_params={"learning_rate": 0.0})
        assert same((await loaded.get_params())[0], values(mlp_bn()))


async def test_optimizer_states_of_another_kind(tmp_path: Path) -> None:
    states = tmp_path / "states"
    async with mx.Module(mlp(), context=mx.reference(0)) as module:
        await ready(module, **SETTINGS)
        await module.step(batch())
        await module.save_optimizer_states(states)
        await module.load_optimizer_states(states)
        data = states.read_bytes()
        for wrong in (b"", b"junk", data[: len(data) // 2], b"\x80\x04K\x01."):
            states.write_bytes(wrong)
            with pytest.raises(ValueError, match="no optimizer states"):
                await module.load_optimizer_states(states)
        await module.init_optimizer(optimizer="test", force_init=True)
        states.write_bytes(data)
        with pytest.raises(ValueError, match=r"'sgd'.*'test'"):
            await module.load_optimizer_states(states)
        with pytest.raises(FileNotFoundError):
            await module.load_optimizer_states(tmp_path / "nowhere")


async def test_checkpoint_that_does_not_fit_the_symbol(tmp_path: Path) -> None:
    given = values(mlp())
    wrong = [
        ({**given, "zz": np.zeros(2)}, ValueError, 'Find name "zz"'),
        ({**given, "fc2_bias": np.zeros(9)}, ValueError, r"fc2_bias.*\(9,\)"),
    ]
    del given["fc2_bias"]
    wrong.append((given, RuntimeError, "fc2_bias is not presented"))
    for content, error, match in wrong:
        mx.save_checkpoint(tmp_path / "net", 1, mlp(), content, {})
        loaded = await mx.Module.load(tmp_path / "net", 1, context=mx.reference(0))
        async with loaded:
            with pytest.raises(error, match=match):
                await loaded.bind(DATA, LABEL)
            assert not loaded.binded
