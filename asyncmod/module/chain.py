"""The modules of a sequence, run one after another; what cuts a run short is noted.

Taking `running` is where a call can be cancelled; then it runs to its end, but for the
user's own code.

Next: `asyncmod.module.child`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import trio

from asyncmod.errors import ModuleStateError
from asyncmod.io.slices import is_sliced, whole
from asyncmod.module import requirements
from asyncmod.module.chain_step import ChainStep
from asyncmod.module.child import Child, batch_for, is_users, next_batch
from asyncmod.module.step import Step
from runtime.executor.accumulation import Part

if TYPE_CHECKING:
    from asyncmod.module.sequential import SequentialModule


class Chain:
    """See the module; those who run it hold `running`.

    Attributes:
        children: In order.
        running: Held by each call, since it runs several modules.
        torn: What an error, or cancelled code of the user's, has cut short, if
            anything.
    """

    def __init__(self, module: SequentialModule) -> None:
        self._module = module
        self.children: list[Child] = []
        self.running = trio.Lock()
        self.torn: str | None = None

    @property
    def takers(self) -> list[Child]:
        """Those that take labels."""
        return [child for child in self.children if child.take_labels]

    def need_optimizer(self, call: str) -> None:
        """Raise ModuleStateError unless all modules have an optimizer."""
        module = self._module
        module.scope.check_open(call)
        requirements.need_bound(module, call)
        requirements.need_params(module, call)
        requirements.need_optimizer(call, there=module.optimizer_initialized)

    def check_whole(self, call: str) -> None:
        """Raise ModuleStateError unless all modules are at the same batch."""
        if self.torn is not None:
            raise ModuleStateError(
                f"`{call}` needs all modules to be at the same batch, and the last "
                f"{self.torn} was cut short: `await mod.forward(batch)` again"
            )

    async def forward(self, batch: Any, training: bool) -> None:
        """From the first module to the last."""
        fed = batch = await self._whole(batch)
        for position, child in enumerate(self.children):
            with trio.CancelScope(shield=not is_users(child.module, "forward")):
                if position > 0:
                    outputs = await self.children[position - 1].module.get_outputs()
                    fed = next_batch(outputs, batch)
                await child.module.forward(batch_for(child, fed), training)
                self.torn = "forward"
        self.torn = None

    async def backward(self, out_grads: Any = None) -> None:
        """From the last module to the first."""
        for position in reversed(range(len(self.children))):
            module = self.children[position].module
            with trio.CancelScope(shield=not is_users(module, "backward")):
                await module.backward(out_grads)
                if position > 0:
                    out_grads = await module.get_input_grads()
                self.torn = "backward"
        self.torn = None

    async def update(self, part: Part | None = None) -> None:
        """Update all modules, or add up their gradients."""
        with trio.CancelScope(shield=True):
            for child in self.children:
                await child.module.inside.update(part)

    async def step(self, batch: Any, part: Part | None = None) -> None:
        """Forward, backward and update of one batch."""
        await self.forward(batch, True)
        await self.backward()
        await self.update(part)

    async def dispatch_step(self, batch: Any, part: Part | None, outputs: bool) -> Step:
        """A step, complete, with the outputs that metrics count, if they are asked."""
        async with self.running:
            await self.step(batch, part)
            read = {
                position: await child.module.get_outputs()
                for position, child in enumerate(self.children)
                if outputs and (child.take_labels or child is self.children[-1])
            }
        return ChainStep.of(read)

    async def dispatch_predict(self, batch: Any) -> Step:
        """An inference forward, in buffers of their own where the modules have them."""
        fed = batch = await self._whole(batch)
        outputs = {}
        async with self.running:
            for position, child in enumerate(self.children):
                step = await child.module.inside.dispatch_predict(batch_for(child, fed))
                outputs[position] = await step.outputs()
                fed = next_batch(outputs[position], batch)
        return ChainStep.of(outputs)

    async def _whole(self, batch: Any) -> Any:
        """The batch, joined if it comes as one batch per context."""
        if is_sliced(batch):
            module = self._module
            return await whole(batch, module.data_shapes, module.label_shapes)
        return batch
