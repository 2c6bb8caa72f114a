"""BucketStep: a step under way, with the bucket that it runs in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from asyncmod.module.batches import Array
from asyncmod.module.module import Module
from asyncmod.module.step import Step


@dataclass
class BucketStep:
    """A step of one bucket; see `asyncmod.module.step.Step`.

    Attributes:
        step: The step.
        module: The bucket's module, which knows the names of its outputs.
        on_withdrawn: Called if the step did not take effect.
    """

    step: Step
    module: Module
    on_withdrawn: Callable[[], None] | None = None

    @property
    def compute_seconds(self) -> float:
        return self.step.compute_seconds

    @property
    def reduce_seconds(self) -> float:
        return self.step.reduce_seconds

    async def copied(self) -> None:
        await self.step.copied()

    async def wait(self) -> None:
        await self.step.wait()

    async def outputs(self) -> list[Array]:
        return await self.step.outputs()

    async def settle(self) -> bool:
        done = await self.step.settle()
        if not done and self.on_withdrawn is not None:
            self.on_withdrawn()
        return done
