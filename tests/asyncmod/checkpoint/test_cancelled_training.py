"""A training that is cancelled at any await while it resumes, trains and saves.

What is there then can be resumed from, to the bits of a training that nobody cancelled.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from asyncmod.checkpoint import Checkpoint
from tests.asyncmod.checkpoint.scenarios import train
from tests.asyncmod.module.nets import same
from tests.harness.cancellation import cancel_at_every_step

SLOW = ["prefetching", "buckets", "several batches per update", "a chain of modules"]


def fail_at_the_fourth_batch(param: Any) -> None:
    if param.nbatch == 3:
        raise ArithmeticError("the fourth batch")


@pytest.mark.parametrize(
    "scenario",
    ["dropout", *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)],
)
async def test_it_is_resumed_to_the_same_bits(scenario: str, tmp_path: Path) -> None:
    expected = await train(scenario, num_epoch=1)
    begun, folder = tmp_path / "begun", tmp_path / "cancelled"
    begun.mkdir()
    prefix = begun / "net"
    with pytest.raises(ArithmeticError):
        await train(
            scenario,
            fail_at_the_fourth_batch,
            checkpoint=prefix,
            checkpoint_every=2,
        )
    assert os.listdir(begun)

    async def call() -> None:
        shutil.copytree(begun, folder)
        saved = Checkpoint(folder / "net", every_batches=2)
        await train(scenario, checkpoint=saved, resume="auto", num_epoch=1)

    async def check(finished: bool) -> None:
        names = os.listdir(folder)
        assert all(name.endswith(".asyncmod") for name in names), names
        saved = folder / "net"
        got = await train(scenario, checkpoint=saved, resume="auto", num_epoch=1)
        assert same(got, expected)
        shutil.rmtree(folder)

    await cancel_at_every_step(call, check)
