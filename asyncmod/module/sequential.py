"""SequentialModule: modules one after another, each fed with the outputs before it.

Follow one batch: `forward` runs child after child, on whatever devices each has;
outputs cross merged. `backward` goes the other way with the gradients of the inputs.

Next: `asyncmod.module.chain`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import trio

from asyncmod.errors import (
    ArgumentError,
    ArgumentTypeError,
)
from asyncmod.io.batch import DataDesc
from asyncmod.module import bind_arguments, requirements
from asyncmod.module.base import BaseModule
from asyncmod.module.binding import check_training
from asyncmod.module.chain import Chain
from asyncmod.module.chain_binding import bind_children, check_requests
from asyncmod.module.chain_inside import ChainInside
from asyncmod.module.chain_values import setting
from asyncmod.module.child import Child
from asyncmod.module.descriptions import parse_shapes
from asyncmod.module.scoped import ScopedModule
from asyncmod.module.states import check_count, check_one
from asyncmod.module.user_arrays import Parameters


class SequentialModule(ScopedModule):
    """A chain of modules that is trained as one.

    Enter it with `async with`, or use it under `mx.run` or `mx.open_runtime`; its
    children are not entered separately, and are closed with it. Several children may
    hold parameters, on different devices; their names must differ.

    Every call runs the children one after another, and calls run one after another, in
    the order in which they were made. A cancelled call has done nothing, or all it had
    to do; only code of the user's, in Python modules, is cut short. If the update of
    one child fails, those before it have been updated.

    Args:
        logger: A `logging.Logger` or a structlog logger.
    """

    META_TAKE_LABELS = "take_labels"
    META_AUTO_WIRING = "auto_wiring"

    def __init__(self, logger: Any = None) -> None:
        super().__init__(logger)
        self._chain = Chain(self)
        self.inside = ChainInside(self, self._chain)
        self._label_shapes: list[DataDesc] = []

    def add(self, module: BaseModule, **meta: Any) -> Self:
        """Append a module; the sequence must be bound and initialized after it.

        Args:
            module: Any module, used in this sequence alone.
            **meta: `take_labels=True` hands it the labels; `auto_wiring=True` renames
                the outputs before it to its data names.

        Returns:
            The sequence, so that calls can be chained.

        Raises:
            ArgumentError: an unknown meta, or the module is in the sequence already.
            ArgumentTypeError: `module` is no module.
        """
        if not isinstance(module, BaseModule):
            raise ArgumentTypeError(
                f"`module` must be a module, not {type(module).__name__}"
            )
        if module is self or any(module is child.module for child in self._children):
            raise ArgumentError(
                f"this {type(module).__name__} is in the sequence already; add another "
                "one, or bind it with shared_module to share parameters"
            )
        known = (self.META_TAKE_LABELS, self.META_AUTO_WIRING)
        for name in meta:
            if name not in known:
                raise ArgumentError(
                    f'Unknown meta "{name}", a typo? Known are {", ".join(known)}'
                )
        wishes = {name: bool(value) for name, value in meta.items()}
        self._children.append(Child(module, **wishes))
        self.binded = False
        self.params_initialized = False
        self.optimizer_initialized = False
        return self

    # What it is made of

    @property
    def data_names(self) -> list[str]:
        """Names of the data inputs: those of the first module."""
        return self._children[0].module.data_names if self._children else []

    @property
    def label_names(self) -> list[str]:
        """Names of the labels, of all modules that take them."""
        names = [n for child in self._chain.takers for n in child.module.label_names]
        return list(dict.fromkeys(names))

    @property
    def output_names(self) -> list[str]:
        """Names of the outputs: those of the last module."""
        return self._children[-1].module.output_names if self._children else []

    @property
    def data_shapes(self) -> list[DataDesc]:
        """Descriptions of the data inputs."""
        self._need_bound("data_shapes")
        return self._children[0].module.data_shapes

    @property
    def label_shapes(self) -> list[DataDesc]:
        """Descriptions of the labels; [] without labels or when not training."""
        self._need_bound("label_shapes")
        return list(self._label_shapes) if self.for_training else []

    @property
    def output_shapes(self) -> list[tuple[str, tuple[int, ...]]]:
        """Name and shape of each output."""
        self._need_bound("output_shapes")
        return self._children[-1].module.output_shapes

    # Binding

    async def bind(
        self,
        *shapes: Any,
        data_shapes: Any = None,
        label_shapes: Any = None,
        for_training: bool = True,
        inputs_need_grad: bool = False,
        force_rebind: bool = False,
        shared_module: Any = None,
        grad_req: Any = "write",
    ) -> None:
        """Bind every module to the outputs of the one before; as Module.bind.

        If it fails or is cancelled, the sequence is not bound; what its modules have
        learned is kept. A `grad_req` by name holds names of the first module's data and
        of all modules' parameters.

        Raises:
            ArgumentError: the sequence is empty, or `shared_module` was given.
            NameMismatchError: outputs are not named as the next module's data, and
                `auto_wiring` was not given for it, or their numbers differ.
        """
        arguments = bind_arguments.collect(
            shapes,
            {
                "data_shapes": data_shapes,
                "label_shapes": label_shapes,
                "for_training": for_training,
                "inputs_need_grad": inputs_need_grad,
                "force_rebind": force_rebind,
                "shared_module": shared_module,
                "grad_req": grad_req,
            },
        )
        if "shared_module" in arguments:
            raise ArgumentError("shared_module for SequentialModule is not supported")
        if not self._children:
            raise ArgumentError(
                "Attempting to bind an empty SequentialModule: add modules first"
            )
        self.scope.runtime("bind")
        async with self._chain.running:
            if self.binded and not arguments.get("force_rebind"):
                self.logger.warning("Already bound, ignoring bind()")
                return
            for_training = arguments.get("for_training", True)
            inputs_need_grad = arguments.get("inputs_need_grad", False)
            check_training(for_training, inputs_need_grad)
            grad_req = arguments.get("grad_req", "write")
            check_requests(grad_req, {*self.data_names, *self.inside.value_names})
            labels = parse_shapes("label_shapes", arguments.get("label_shapes"))
            data = parse_shapes("data_shapes", arguments["data_shapes"])
            self.binded = False
            await bind_children(
                self._children,
                data,
                labels,
                for_training=for_training,
                inputs_need_grad=inputs_need_grad,
                grad_req=grad_req,
            )
            self._label_shapes = list(labels) if self._chain.takers else []
            self.for_training = for_training
            self.inputs_need_grad = inputs_need_grad
            self._chain.torn = None
            self.binded = True

    async def _free(self) -> None:
        async with trio.open_nursery() as nursery:
            for child in self._children:
                if isinstance(child.module, ScopedModule):
                    nursery.start_soon(child.module.aclose)

    # Parameters

    async def init_params(
        self,
        initializer: Any = None,
        arg_params: Mapping[str, Any] | None = None,
        aux_params: Mapping[str, Any] | None = None,
        allow_missing: bool = False,
        force_init: bool = False,
        allow_extra: bool = False,
    ) -> None:
        """Give every parameter of every module a value; see Module.init_params.

        Each module takes its own from the dicts. Ignored if they have values, unless
        `force_init`.

        Raises:
            NameMismatchError: two modules have a parameter of the same name.
            ExtraParameterError: the dicts have what no module has.
        """
        self._need_bound("init_params")
        if self.params_initialized and not force_init:
            return
        async with setting(self._chain, arg_params, aux_params, allow_extra):
            for child in self._children:
                await child.module.init_params(
                    initializer, arg_params, aux_params, allow_missing, force_init, True
                )
            self.params_initialized = True

    async def set_params(
        self,
        arg_params: Mapping[str, Any] | None,
        aux_params: Mapping[str, Any] | None,
        allow_missing: bool = False,
        force_init: bool = True,
        allow_extra: bool = False,
    ) -> None:
        """Set parameters and auxiliary states from dicts; see Module.set_params."""
        self._need_bound("set_params")
        if self.params_initialized and not force_init:
            return
        async with setting(self._chain, arg_params, aux_params, allow_extra):
            for child in self._children:
                await child.module.set_params(
                    arg_params, aux_params, allow_missing, force_init, True
                )
            self.params_initialized = True

    async def get_params(self) -> tuple[Parameters, Parameters]:
        """Copies of the parameters and auxiliary states of all modules."""
        self._need_params("get_params")
        arguments: Parameters = {}
        auxiliaries: Parameters = {}
        async with self._chain.running:
            for child in self._children:
                own_arguments, own_auxiliaries = await child.module.get_params()
                arguments.update(own_arguments)
                auxiliaries.update(own_auxiliaries)
        return arguments, auxiliaries

    async def init_optimizer(
        self,
        kvstore: Any = "local",
        optimizer: Any = "sgd",
        optimizer_params: Any = (("learning_rate", 0.01),),
        force_init: bool = False,
    ) -> None:
        """Install an optimizer in every module; see Module.init_optimizer.

        By name, each gets one of its own. An Optimizer object is shared, with its
        counts and with the parameter names of the first module, as in MXNet.
        """
        self._need_params("init_optimizer")
        async with self._chain.running:
            if self.optimizer_initialized and not force_init:
                self.logger.warning("optimizer already initialized, ignoring...")
                return
            with trio.CancelScope(shield=True):
                for child in self._children:
                    await child.module.init_optimizer(
                        kvstore, optimizer, optimizer_params, True
                    )
                self.optimizer_initialized = True

    # Computation

    async def forward(self, data_batch: Any, is_train: bool | None = None) -> None:
        """Run the modules one after another on a batch; see Module.forward."""
        self._need_params("forward")
        training = self.for_training if is_train is None else is_train
        async with self._chain.running:
            await self._chain.forward(data_batch, training)

    async def backward(self, out_grads: Any = None) -> None:
        """Compute gradients, from the last module to the first; see Module.backward.

        If a module fails, or the user's own code is cancelled, after others have run,
        the running statistics of BatchNorm have changed in those, and `update` is
        refused until there is another forward and backward.

        Raises:
            ModuleStateError: the last forward or backward was cut short; or see
                Module.backward.
        """
        self._need_params("backward")
        async with self._chain.running:
            self._chain.check_whole("backward")
            await self._chain.backward(out_grads)

    async def update(self) -> None:
        """Update the parameters of all modules; a cancelled call updates all or none.

        Raises:
            ModuleStateError: there is no optimizer, or the last forward or backward was
                cut short.
        """
        await self.inside.update(None)

    async def step(self, data_batch: Any) -> None:
        """Forward, backward and update of one batch.

        Cancelled, the step did not take effect or has run to its end; only the
        gradient functions of Python modules are cut short.
        """
        self._chain.need_optimizer("step")
        async with self._chain.running:
            await self._chain.step(data_batch)

    async def zero_grad(self) -> None:
        """Set all gradients to zero; for `grad_req="add"`."""
        self._need_bound("zero_grad")
        async with self._chain.running:
            with trio.CancelScope(shield=True):
                for child in self._children:
                    await child.module.zero_grad()

    # Results

    async def get_outputs(self, merge_multi_context: bool = True) -> list[Any]:
        """Outputs of the last module; see Module.get_outputs."""
        self._need_params("get_outputs")
        return await self._children[-1].module.get_outputs(merge_multi_context)

    async def get_states(self, merge_multi_context: bool = True) -> list[Any]:
        """States of all modules, in order; see Module.get_states."""
        self._need_params("get_states")
        states: list[Any] = []
        for child in self._children:
            if child.module.inside.state_names:
                states += await child.module.get_states(merge_multi_context)
        return states

    async def set_states(self, states: Any = None, value: float | None = None) -> None:
        """Set the state inputs of all modules, in order; see Module.set_states.

        Cancelled in its middle, the first modules have their new states.
        """
        self._need_params("set_states")
        check_one(states, value)
        names = self.inside.state_names
        if states is not None:
            check_count(states, names)
        begin = 0
        async with self._chain.running:
            for child in self._children:
                end = begin + len(child.module.inside.state_names)
                if end > begin:
                    part = None if states is None else states[begin:end]
                    await child.module.set_states(part, value)
                begin = end

    async def get_input_grads(self, merge_multi_context: bool = True) -> list[Any]:
        """Gradients of the first module's data; see Module.get_input_grads."""
        self._need_params("get_input_grads")
        requirements.need_input_gradients(self)
        return await self._children[0].module.get_input_grads(merge_multi_context)

    async def get_grads(self) -> Parameters:
        """Gradient of each parameter of all modules; see Module.get_grads."""
        self._need_bound("get_grads")
        gradients: Parameters = {}
        async with self._chain.running:
            for child in self._children:
                gradients.update(await child.module.get_grads())
        return gradients

    async def update_metric(
        self, eval_metric: Any, labels: Any, pre_sliced: bool = False
    ) -> None:
        """Update a metric with the outputs of each module that takes labels."""
        self._need_params("update_metric")
        async with self._chain.running:
            with trio.CancelScope(shield=True):
                for child in self._chain.takers:
                    await child.module.update_metric(eval_metric, labels, pre_sliced)

    def install_monitor(self, mon: Any) -> None:
        """Install a monitor on all modules."""
        self._need_bound("install_monitor")
        for child in self._children:
            child.module.install_monitor(mon)

    # Inside

    @property
    def _children(self) -> list[Child]:
        return self._chain.children
