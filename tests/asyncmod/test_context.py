"""Contexts as values, and `with mx.cpu(1):`."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import trio

import asyncmod as mx


def test_the_innermost_with_statement_counts() -> None:
    assert mx.current_context() == mx.cpu(0)
    with mx.cpu(1) as outer:
        assert outer == mx.current_context() == mx.cpu(1)
        with mx.reference(2):
            assert mx.current_context() == mx.reference(2)
        assert mx.current_context() == mx.cpu(1)
    with pytest.raises(ZeroDivisionError), mx.cpu(3):
        _ = 1 / 0
    assert mx.current_context() == mx.cpu(0)


async def test_other_tasks_are_not_concerned() -> None:
    seen: dict[int, mx.Context] = {}

    async def enter(index: int) -> None:
        with mx.cpu(index):
            await trio.lowlevel.checkpoint()
            seen[index] = mx.current_context()

    async with trio.open_nursery() as nursery:
        for index in range(3):
            nursery.start_soon(enter, index)
    assert seen == {index: mx.cpu(index) for index in range(3)}


async def test_modules_and_executors_run_there() -> None:
    seen: list[mx.Context] = []

    class Passed(mx.operator.CustomOp):
        def forward(
            self, is_train: Any, req: Any, in_data: Any, out_data: Any, aux: Any
        ) -> None:
            self.assign(out_data[0], req[0], in_data[0])

    @mx.operator.register("test_passed")
    class PassedProp(mx.operator.CustomOpProp):
        def create_operator(self, ctx: mx.Context, shapes: Any, dtypes: Any) -> Any:
            seen.append(ctx)
            return Passed()

    net = mx.sym.Custom(mx.sym.Variable("data"), op_type="test_passed")
    with mx.reference(1):
        mod = mx.Module(net, label_names=None)
    async with mod:
        await mod.bind([("data", (2, 3))], for_training=False)
    with mx.cpu(2):
        async with mx.bind(net, {"data": np.ones((2, 3), np.float32)}) as ex:
            await ex.forward()
    assert set(seen) == {mx.reference(1), mx.cpu(2)}
