"""What a Module is made from: a symbol, the roles of its arguments, where it runs.

Next: `asyncmod.module.template`, which binding makes of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from asyncmod.context import Context
from asyncmod.errors import ArgumentError, ArgumentTypeError, UnsupportedError
from asyncmod.io.batch import DataDesc
from asyncmod.module import gradient_requests
from asyncmod.module.context_groups import as_placements
from asyncmod.module.contexts import (
    as_contexts,
    as_on_worker_death,
    as_workload,
    listed,
)
from asyncmod.module.descriptions import check_input_names
from asyncmod.module.parameters import Slots
from asyncmod.module.template import Template
from runtime.context import DeviceId
from runtime.devices.contract import OnDeath
from runtime.executor.group import ExecutorGroup


@dataclass(frozen=True)
class Definition:
    """See the module; never changed.

    Attributes:
        symbol: The graph.
        data_names, label_names, state_names: Arguments that are inputs, by role.
        fixed_names: Parameters that are not trained.
        contexts: Where it runs.
        workload: Share of the batch of each.
        placements: Per context, the device of each context group.
        on_worker_death: What is to be done when a worker process dies.
    """

    symbol: Any
    data_names: list[str]
    label_names: list[str]
    state_names: list[str]
    fixed_names: list[str]
    contexts: tuple[Context, ...]
    workload: tuple[float, ...]
    placements: tuple[Mapping[str, DeviceId], ...]
    on_worker_death: OnDeath

    @classmethod
    def of(
        cls,
        symbol: Any,
        data_names: Sequence[str] | None,
        label_names: Sequence[str] | None,
        state_names: Sequence[str] | None,
        fixed_names: Sequence[str] | None,
        context: Any,
        work_load_list: Sequence[float] | None,
        group2ctxs: Any,
        compression_params: Any,
        on_worker_death: Any,
    ) -> Definition:
        """Check the arguments of Module, whose documentation names the errors."""
        if not hasattr(symbol, "graph"):
            raise ArgumentTypeError(
                f"`symbol` must be an mx.symbol.Symbol, not {type(symbol).__name__}"
            )
        if compression_params is not None:
            raise UnsupportedError("compression_params is not supported: leave it out")
        contexts = as_contexts(context)
        placements = as_placements(group2ctxs, len(contexts))
        made = cls(
            symbol,
            list(data_names or ()),
            list(label_names or ()),
            list(state_names or ()),
            list(fixed_names or ()),
            contexts,
            as_workload(work_load_list, len(contexts)),
            placements,
            as_on_worker_death(on_worker_death, any(placements)),
        )
        arguments = symbol.list_arguments()
        check_input_names("data_names", made.data_names, arguments, True)
        check_input_names("label_names", made.label_names, arguments, False)
        check_input_names("state_names", made.state_names, arguments, True)
        check_input_names("fixed_param_names", made.fixed_names, arguments, True)
        return made

    @cached_property
    def parameter_names(self) -> list[str]:
        """Arguments that are no inputs."""
        inputs = {*self.data_names, *self.label_names, *self.state_names}
        return [name for name in self.symbol.list_arguments() if name not in inputs]

    @property
    def value_names(self) -> list[str]:
        """What has values: parameters and auxiliary states."""
        return [*self.parameter_names, *self.symbol.list_auxiliary_states()]

    @property
    def trained_names(self) -> list[str]:
        """Parameters that are not fixed."""
        return [name for name in self.parameter_names if name not in self.fixed_names]

    def template(
        self,
        *,
        data: Sequence[str],
        for_training: bool,
        inputs_need_grad: bool,
        grad_req: Any,
        seed: int,
        in_flight: int,
    ) -> Template:
        """What the executor groups of a binding have in common.

        Args:
            data: Names of the data inputs, in bound order.
            for_training: Whether gradients are wanted.
            inputs_need_grad: Whether of the data too.
            grad_req: As `bind` has it.
            seed: Seed of the random operators.
            in_flight: Steps that may be under way.
        """
        arguments = self.symbol.list_arguments()
        graph = self.symbol.graph
        layouts = [e.node.text.get("__layout__") for e in graph.outputs]
        return Template(
            graph=graph,
            devices=self.contexts,
            workload=self.workload,
            placements=self.placements,
            on_worker_death=self.on_worker_death,
            label_names=tuple(n for n in self.label_names if n in arguments),
            state_names=tuple(self.state_names),
            gradients=gradient_requests.resolve(
                grad_req,
                arguments,
                data=data,
                inputs={*data, *self.label_names, *self.state_names},
                fixed=self.fixed_names,
                for_training=for_training,
                inputs_need_grad=inputs_need_grad,
            ),
            for_training=for_training,
            seed=seed,
            output_axes=tuple(DataDesc.get_batch_axis(layout) for layout in layouts),
            in_flight=in_flight,
        )

    def slots(self, group: ExecutorGroup) -> tuple[Slots, Slots]:
        """What needs values: parameters and auxiliary states."""
        attributes = self.symbol.attr_dict()
        return (
            Slots(group.parameter_shapes, group.parameter_dtypes, attributes),
            Slots(group.auxiliary_shapes, group.auxiliary_dtypes, attributes),
        )

    def check_shared(self, shared: Definition) -> None:
        """Refuse to share parameters with a module that runs elsewhere.

        Raises:
            ArgumentError: its contexts, or those of its context groups, differ, or
                only one of both drops contexts.
        """
        if shared.contexts != self.contexts:
            raise ArgumentError(
                f"`shared_module` runs on {listed(shared.contexts)} and this "
                f"module on {listed(self.contexts)}; shared parameters need the same "
                "contexts"
            )
        if shared.placements != self.placements:
            raise ArgumentError(
                f"`shared_module` has group2ctxs {shared.placements} and this "
                f"module {self.placements}; shared parameters need the same"
            )
        theirs, ours = shared.on_worker_death, self.on_worker_death
        if theirs != ours and "drop" in (theirs, ours):
            raise ArgumentError(
                f"`shared_module` has on_worker_death={theirs!r} and this module "
                f"{ours!r}: modules that share parameters lose a context together; "
                "give both the same"
            )
