"""The contract suite passes good iterators and finds each kind of broken one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import trio

from asyncmod.io import DataBatch, DataDesc, DataIter
from asyncmod.testing import check_iterator


class Counting(DataIter):
    """Four batches of one number."""

    provide_data = (DataDesc("data", (1,)),)

    def __init__(self) -> None:
        super().__init__(1)
        self.position = 0

    async def next(self) -> DataBatch:
        await trio.lowlevel.checkpoint()
        if self.position == 4:
            raise StopAsyncIteration
        self.position += 1
        return DataBatch([np.array([self.position - 1.0])], pad=0)

    async def reset(self) -> None:
        await trio.lowlevel.checkpoint()
        self.position = 0

    def get_state(self) -> dict[str, Any]:
        return {"position": self.position}

    def set_state(self, state: dict[str, Any]) -> None:
        self.position = state["position"]


class WrongShape(Counting):
    provide_data = (DataDesc("data", (2,)),)


class ForgetsPosition(Counting):
    def get_state(self) -> dict[str, Any]:
        return {"position": min(self.position, 2)}


class IgnoresState(Counting):
    def set_state(self, state: dict[str, Any]) -> None:
        pass


class AddsState(Counting):
    def set_state(self, state: dict[str, Any]) -> None:
        self.position += state["position"]


class ArrayInState(Counting):
    def get_state(self) -> dict[str, Any]:
        return {"position": np.array(self.position)}


class LosesWhenCancelled(Counting):
    async def next(self) -> DataBatch:
        self.position += 1
        await trio.lowlevel.checkpoint()
        self.position -= 1
        return await super().next()


class StartsAgainByItself(Counting):
    async def next(self) -> DataBatch:
        try:
            return await super().next()
        except StopAsyncIteration:
            self.position = 0
            raise


async def test_a_good_iterator_passes() -> None:
    await check_iterator(Counting)


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (WrongShape, AssertionError),
        (ForgetsPosition, AssertionError),
        (IgnoresState, AssertionError),
        (AddsState, AssertionError),
        (ArrayInState, TypeError),
        (LosesWhenCancelled, AssertionError),
        (StartsAgainByItself, AssertionError),
    ],
)
async def test_a_broken_iterator_is_found(make: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        await check_iterator(make)
