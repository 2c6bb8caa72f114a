"""What a Module holds: its definition, its executors, its optimizer.

Its members work on this, each kind in a file of its own: `binding`, `parameter_values`,
`module_files`, `optimizer_install`, `running`, `results`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import trio

from asyncmod.context import Context
from asyncmod.errors import ModuleStateError
from asyncmod.module import requirements
from asyncmod.module.batches import Array
from asyncmod.module.bound import Bound
from asyncmod.module.definition import Definition
from asyncmod.module.executors import Executors
from asyncmod.module.monitoring import Monitoring
from asyncmod.module.optimization import Optimization

if TYPE_CHECKING:
    from asyncmod.module.module import Module


class Core:
    """See the module.

    Attributes:
        module: Whose it is: its flags say what there is.
        definition: What it was made from.
        executors: Once it is bound.
        optimization: Once it has an optimizer.
        seed: Of the random operators; drawn by the first `bind`.
        monitoring: The monitors that are installed.
        loaded: Values that came before the module was bound, from a checkpoint.
        loaded_states: A file of optimizer states for `init_optimizer`.
        changing: Held while executors, values or optimizer are replaced.
    """

    def __init__(self, module: Module, definition: Definition) -> None:
        self.module = module
        self.definition = definition
        self.executors: Executors | None = None
        self.optimization: Optimization | None = None
        self.seed: int | None = None
        self.monitoring = Monitoring()
        self.loaded: tuple[Mapping[str, Array], Mapping[str, Array]] | None = None
        self.loaded_states: Path | None = None
        self.changing = trio.Lock()

    def need_bound(self, call: str) -> None:
        """Raise ClosedError or ModuleStateError unless the module is bound."""
        self.module.scope.check_open(call)
        requirements.need_bound(self.module, call)

    def need_params(self, call: str) -> None:
        """Raise ModuleStateError unless the parameters have values."""
        self.need_bound(call)
        requirements.need_params(self.module, call)

    def need_training(self, call: str) -> None:
        """Raise ModuleStateError unless the module is bound for training."""
        requirements.need_training(self.module, call)

    @property
    def contexts(self) -> tuple[Context, ...]:
        """Where it runs: without contexts that were dropped since it was bound."""
        if self.executors is None:
            return self.definition.contexts
        return self.executors.first.group.spec.devices

    @property
    def workload(self) -> tuple[float, ...]:
        """The share of a batch of each of these."""
        if self.executors is None:
            return self.definition.workload
        return self.executors.first.group.spec.workload

    def need_executors(self, call: str) -> Executors:
        """The executors.

        Raises:
            ClosedError: the module is closed.
            ModuleStateError: it is not bound.
        """
        if self.executors is None:
            self.need_bound(call)
            raise AssertionError("bound modules have executors")
        return self.executors

    def need_optimizer(self, call: str) -> Optimization:
        """The optimizer.

        Raises:
            ModuleStateError: there is none, or nothing that it could update.
        """
        self.need_params(call)
        requirements.need_optimizer(call, there=self.optimization is not None)
        assert self.optimization is not None
        return self.optimization

    def need_forward(self, call: str) -> Bound:
        """The executor group of the last forward or step.

        Raises:
            ModuleStateError: there was none.
        """
        self.need_params(call)
        forwarded = self.need_executors(call).forwarded
        if forwarded is None:
            raise ModuleStateError(
                f"`{call}` needs a forward before it: `await mod.forward(batch)`"
            )
        return forwarded

    def reseed(self, seed: int) -> None:
        """Give the random operators another seed."""
        self.seed = seed
        self.need_executors("checkpoint").reseed(seed)

    async def free(self) -> None:
        """Free the executors, for good."""
        executors, self.executors = self.executors, None
        if executors is not None:
            await executors.aclose()

    async def retire(self) -> None:
        """Free the executors; what they were bound with stays readable."""
        await self.need_executors("retire").aclose()
