"""mx.run: a runtime around the program, and errors that help."""

from __future__ import annotations

import gc
import inspect
import warnings
from typing import Any

import numpy as np
import pytest
import trio

import asyncmod as mx
from asyncmod.errors import ModuleStateError, NotAwaitedError, ScopeError
from tests.asyncmod.module.nets import batch, mlp, ready


def test_run_returns_and_closes_what_was_not_entered() -> None:
    modules: list[mx.Module] = []

    async def main(count: int) -> int:
        modules.append(await ready(mx.Module(mlp(), context=mx.reference(0))))
        await modules[0].forward(batch())
        return count + 1

    assert mx.run(main, 41) == 42
    assert not modules[0].binded


def test_run_takes_the_function_not_its_call() -> None:
    async def main() -> None:
        pass

    with pytest.raises(ScopeError, match=r"write mx\.run\(main\)"):
        mx.run(main())  # type: ignore[arg-type]


def test_run_inside_trio() -> None:
    async def inner() -> None:
        pass

    async def main() -> None:
        with pytest.raises(ScopeError, match="inside a Trio program"):
            mx.run(inner)

    trio.run(main)


def test_errors_come_out_bare() -> None:
    async def main() -> None:
        raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        mx.run(main)


def test_forgotten_await_is_an_error_with_its_line() -> None:
    async def main() -> None:
        module = await ready(mx.Module(mlp(), context=mx.reference(0)))
        module.forward(batch())  # type: ignore[unused-coroutine]

    lines, first = inspect.getsourcelines(main)
    with pytest.raises(NotAwaitedError, match=r"`Module\.forward.*never awaited") as e:
        mx.run(main)
    assert f"{__file__}:{first + len(lines) - 1}" in str(e.value)
    assert "write `await`" in str(e.value)


def test_forgotten_await_explains_the_error_that_it_led_to() -> None:
    async def main() -> None:
        module = await ready(mx.Module(mlp(), context=mx.reference(0)))
        module.forward(batch())  # type: ignore[unused-coroutine]
        await module.get_outputs()

    with pytest.raises(ModuleStateError, match="needs a forward") as caught:
        mx.run(main)
    [note] = caught.value.__notes__
    assert "`Module.forward(...)` was never awaited" in note
    assert __file__ in note


def test_an_error_about_a_coroutine_in_a_variable_names_its_line() -> None:
    async def main() -> Any:
        module = await ready(mx.Module(mlp(), context=mx.reference(0)))
        outputs: Any = module.get_outputs()
        return outputs[0]

    async def good() -> int:
        gc.collect()
        return 5

    with pytest.raises(TypeError, match="not subscriptable") as caught:
        mx.run(main)
    [note] = caught.value.__notes__
    _, first = inspect.getsourcelines(main)
    assert "`Module.get_outputs(...)` was never awaited" in note
    assert f"{__file__}:{first + 2}" in note
    # What a failed program left is not the fault of the next one.
    del caught
    assert mx.run(good) == 5


def test_coroutines_of_others_still_warn() -> None:
    async def other() -> None:
        pass

    async def main() -> None:
        other()  # type: ignore[unused-coroutine]
        gc.collect()

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        mx.run(main)
    assert any("other' was never awaited" in str(w.message) for w in caught)


def test_run_restores_what_it_changed() -> None:
    import sys

    async def main() -> None:
        assert sys.get_coroutine_origin_tracking_depth() >= 1

    before: Any = warnings._warn_unawaited_coroutine  # type: ignore[attr-defined]
    depth = sys.get_coroutine_origin_tracking_depth()
    mx.run(main)
    assert warnings._warn_unawaited_coroutine is before  # type: ignore[attr-defined]
    assert sys.get_coroutine_origin_tracking_depth() == depth


def test_seed_makes_runs_repeatable() -> None:
    async def main() -> Any:
        mx.seed(7)
        data = mx.sym.Variable("data")
        net = mx.sym.Dropout(mx.sym.FullyConnected(data, num_hidden=16, name="fc"))
        module = mx.Module(net, label_names=None, context=mx.reference(0))
        await module.bind([("data", (4, 5))])
        await module.init_params(mx.init.Uniform())
        await module.forward(mx.io.DataBatch([np.ones((4, 5), np.float32)]))
        return await module.get_outputs()

    first, second = mx.run(main), mx.run(main)
    assert (first[0] == 0).any()
    np.testing.assert_array_equal(first[0], second[0])
