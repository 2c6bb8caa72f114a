"""Models in our own format: from callbacks, and from a training's checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import asyncmod as mx
from asyncmod.checkpoint import (
    CheckpointError,
    read_model,
    saved_files,
    write_checkpoint,
    write_model,
)
from asyncmod.errors import ArgumentError
from tests.asyncmod.checkpoint.samples import HEADER
from tests.asyncmod.checkpoint.scenarios import devices, iterator, normalized, train


async def fit(**options: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    async with mx.open_runtime():
        module = mx.Module(normalized(), context=devices(2))
        callback = options.pop("callback", None)
        await module.fit(
            iterator(),
            num_epoch=2,
            epoch_end_callback=callback(module) if callback else None,
            **options,
        )
        return await module.get_params()


def assert_model(path: Path, parameters: Any, auxiliaries: Any) -> None:
    symbol, read, read_auxiliaries = read_model(path)
    assert symbol is not None
    assert symbol.list_arguments() == normalized().list_arguments()
    for got, expected in ((read, parameters), (read_auxiliaries, auxiliaries)):
        assert got.keys() == expected.keys()
        for name, array in expected.items():
            assert np.array_equal(got[name], array), name


async def test_the_model_of_a_training(tmp_path: Path) -> None:
    mx.seed(1)
    parameters, auxiliaries = await fit(checkpoint=tmp_path / "net")
    last = saved_files(tmp_path / "net")[-1]
    assert_model(Path(last.path), parameters, auxiliaries)


@pytest.mark.parametrize(
    "callback",
    [
        lambda prefix: (
            lambda module: mx.callback.do_checkpoint(prefix, 2, format="asyncmod")
        ),
        lambda prefix: (
            lambda module: mx.callback.module_checkpoint(
                module, prefix, 2, True, format="asyncmod"
            )
        ),
    ],
)
async def test_callbacks_save_models(tmp_path: Path, callback: Any) -> None:
    parameters, auxiliaries = await fit(callback=callback(f"{tmp_path}/net"))
    assert [file.number for file in saved_files(tmp_path / "net")] == [2]
    assert_model(tmp_path / "net-0002.asyncmod", parameters, auxiliaries)


async def test_module_checkpoint_saves_states(tmp_path: Path) -> None:
    await fit(
        callback=lambda module: mx.callback.module_checkpoint(
            module, f"{tmp_path}/net", save_optimizer_states=True, format="asyncmod"
        )
    )
    names = sorted(path.name for path in tmp_path.glob("*.states"))  # noqa: ASYNC240
    assert names == ["net-0001.states", "net-0002.states"]


def test_casts_of_mixed_precision_stay(tmp_path: Path) -> None:
    net = mx.sym.amp_cast(mx.sym.Variable("x"), dtype="float16", name="half")
    write_model(tmp_path / "a.asyncmod", net, {}, {}, epoch=0)
    symbol, _, _ = read_model(tmp_path / "a.asyncmod")
    assert symbol.list_outputs() == ["half_output"]


def test_a_model_without_a_symbol(tmp_path: Path) -> None:
    write_model(tmp_path / "a.asyncmod", None, {"w": np.ones(3)}, {}, epoch=4)
    symbol, parameters, auxiliaries = read_model(tmp_path / "a.asyncmod")
    assert symbol is None
    assert parameters["w"].tolist() == [1, 1, 1]
    assert auxiliaries == {}


def test_no_model(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "a.asyncmod", HEADER, {"w": np.ones(3)})
    with pytest.raises(CheckpointError, match="holds no model but 'test'"):
        read_model(tmp_path / "a.asyncmod")


async def test_a_model_is_no_training(tmp_path: Path) -> None:
    write_model(tmp_path / "net-0004.asyncmod", None, {}, {})
    with pytest.raises(CheckpointError, match="'model', not the state of a training"):
        await train("dropout", checkpoint=tmp_path / "net", resume="auto")


def test_formats_are_checked() -> None:
    with pytest.raises(ArgumentError, match="`format` is 'zip'"):
        mx.callback.do_checkpoint("net", format="zip")  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="`format` is 'zip'"):
        mx.callback.module_checkpoint(None, "net", format="zip")  # type: ignore[arg-type]
