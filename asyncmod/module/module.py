"""Module: one symbol, bound to one or several devices.

Follow one batch: `step` checks names and shapes against the bound ones
(`Bound.match_batch`), then one call of the executor group slices it over the devices.
Other shapes lead to another group with the same parameters (`Executors`).

Next: `asyncmod.module.executors`, then `runtime.executor.group`.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from os import PathLike, fspath
from pathlib import Path
from typing import Any, Self

import numpy as np
import trio

from asyncmod import random
from asyncmod.checkpoint.staging import Staging
from asyncmod.errors import (
    ArgumentError,
    ArgumentTypeError,
    InputError,
    ModuleStateError,
    UnsupportedError,
)
from asyncmod.interop import mxnet_checkpoint
from asyncmod.io.batch import DataDesc
from asyncmod.module import (
    bind_arguments,
    gradient_requests,
    optimizer_states,
    parameters,
    sparse_inputs,
    training_state,
)
from asyncmod.module.base import Parameters, face
from asyncmod.module.batches import Array, as_array
from asyncmod.module.bound import Bound
from asyncmod.module.context_groups import as_placements
from asyncmod.module.contexts import (
    as_contexts,
    as_on_worker_death,
    as_workload,
    listed,
)
from asyncmod.module.descriptions import (
    batch_size,
    check_described,
    check_input_names,
    parse_shapes,
)
from asyncmod.module.executors import Executors
from asyncmod.module.frozen import frozen
from asyncmod.module.monitoring import Monitoring
from asyncmod.module.optimization import Optimization
from asyncmod.module.scoped import ScopedModule
from asyncmod.module.states import check_count, check_one, merged, per_device
from asyncmod.module.step import Step
from asyncmod.module.template import Template
from asyncmod.module.training_state import State
from asyncmod.optimizer import Optimizer
from runtime.devices.contract import OnDeath
from runtime.executor.accumulation import Part
from runtime.executor.split import split

Path_ = str | PathLike[str]


class Module(ScopedModule):
    """A symbol with its parameters and optimizer on one or several devices.

    Enter it with `async with`, which closes it; or use it under `mx.run` or
    `mx.open_runtime`, which then close it. Any number of tasks may call it: calls take
    effect one after another. Arrays that it returns are copies.

    Args:
        symbol: The graph.
        data_names: Arguments that are data; None means none.
        label_names: Arguments that are labels; None means none. With a warning it may
            name what the symbol does not have.
        logger: A `logging.Logger` or a structlog logger.
        context: Where to run, a context or a list of them; `mx.cpu(0)` unless given.
        work_load_list: Share of each batch per context; all equal unless given.
        fixed_param_names: Parameters that are not trained.
        state_names: Arguments that are states: neither data nor parameters.
        group2ctxs: Where nodes with an attribute `ctx_group` run (`mx.AttrScope`): a
            dict of group to context, or to a list with one context per `context`; or
            one dict of group to context per `context`. Nodes of no group run where
            their first input comes from. None and {} mean no groups.
        compression_params: Not supported: must be None.
        on_worker_death: What is to be done when the worker process of a context with
            `worker="process"` dies: "restart" starts another one and does again what
            was under way, so that nothing is lost and no result differs; "fail" raises
            `WorkerDied`, with all parameters and states as before the call.

    Raises:
        ArgumentTypeError: `symbol` or `context` is of the wrong type.
        NameMismatchError: a data, state or fixed name is no argument of the symbol.
        ArgumentError: `work_load_list` or `group2ctxs` does not match the contexts, or
            a context stands twice, or `on_worker_death` is unknown.
        UnsupportedError: `compression_params` was given.
    """

    def __init__(
        self,
        symbol: Any,
        data_names: Sequence[str] | None = ("data",),
        label_names: Sequence[str] | None = ("softmax_label",),
        logger: Any = None,
        context: Any = None,
        work_load_list: Sequence[float] | None = None,
        fixed_param_names: Sequence[str] | None = None,
        state_names: Sequence[str] | None = None,
        group2ctxs: Any = None,
        compression_params: Any = None,
        *,
        on_worker_death: OnDeath = "restart",
    ) -> None:
        super().__init__(logger)
        if not hasattr(symbol, "graph"):
            raise ArgumentTypeError(
                f"`symbol` must be an mx.symbol.Symbol, not {type(symbol).__name__}"
            )
        if compression_params is not None:
            raise UnsupportedError("compression_params is not supported: leave it out")
        self._symbol = symbol
        self._contexts = as_contexts(context)
        self._workload = as_workload(work_load_list, len(self._contexts))
        self._placements = as_placements(group2ctxs, len(self._contexts))
        self._on_worker_death = as_on_worker_death(on_worker_death)
        self._data_names = list(data_names or ())
        self._label_names = list(label_names or ())
        self._state_names = list(state_names or ())
        self._fixed_names = list(fixed_param_names or ())
        arguments = symbol.list_arguments()
        check_input_names("data_names", self._data_names, arguments, True)
        check_input_names("label_names", self._label_names, arguments, False)
        check_input_names("state_names", self._state_names, arguments, True)
        check_input_names("fixed_param_names", self._fixed_names, arguments, True)
        inputs = {*self._data_names, *self._label_names, *self._state_names}
        self._param_names = [name for name in arguments if name not in inputs]
        self._changing = trio.Lock()
        self._executors: Executors | None = None
        self._forwarded: Bound | None = None
        self._forwarded_in_training = False
        # Values that came before the module was bound, from a checkpoint.
        self._loaded: tuple[Mapping[str, Array], Mapping[str, Array]] | None = None
        self._loaded_states: Path | None = None
        self._optimization: Optimization | None = None
        self._seed: int | None = None
        self._monitoring = Monitoring()

    # Scope

    async def _free(self) -> None:
        executors, self._executors = self._executors, None
        if executors is not None:
            await executors.aclose()

    def _frozen(self) -> AbstractAsyncContextManager[Module]:
        twin = Module(
            self._symbol,
            self._data_names,
            self._label_names,
            self.logger,
            list(self._contexts),
            self._workload,
            state_names=self._state_names,
            group2ctxs=list(self._placements) or None,
            on_worker_death=self._on_worker_death,
        )
        return frozen(self, twin, lambda module: module._bound("predict").current.group)

    async def _retire(self) -> None:
        """Free the executors; what they were bound with stays readable."""
        await self._bound("retire").aclose()

    # What it is made of

    @property
    def data_names(self) -> list[str]:
        """Names of the data inputs."""
        return list(self._data_names)

    @property
    def label_names(self) -> list[str]:
        """Names of the labels."""
        return list(self._label_names)

    @property
    def output_names(self) -> list[str]:
        """Names of the outputs, in the symbol's order."""
        names: list[str] = self._symbol.list_outputs()
        return names

    @property
    def data_shapes(self) -> list[DataDesc]:
        """Descriptions of the data inputs, with the shapes of the last forward."""
        return list(self._bound("data_shapes").current.data)

    @property
    def label_shapes(self) -> list[DataDesc]:
        """Descriptions of the labels; [] without labels or when not training."""
        current = self._bound("label_shapes").current
        return list(current.labels) if self.for_training else []

    @property
    def output_shapes(self) -> list[tuple[str, tuple[int, ...]]]:
        """Name and shape of each merged output."""
        group = self._bound("output_shapes").current.group
        return list(zip(self.output_names, group.output_shapes, strict=True))

    @property
    def optimizer(self) -> Optimizer | None:
        """The optimizer, once there is one."""
        return self._optimization.optimizer if self._optimization else None

    # Binding

    async def bind(
        self,
        *shapes: Any,
        data_shapes: Any = None,
        label_shapes: Any = None,
        for_training: bool = True,
        inputs_need_grad: bool = False,
        force_rebind: bool = False,
        shared_module: Module | None = None,
        grad_req: Any = "write",
    ) -> None:
        """Compile the symbol for these shapes on every device.

        Either `bind(data_shapes, label_shapes, ...)` as in MXNet, or one description
        of a data input per positional argument. Compilation runs on the device
        threads. If it fails or is cancelled, the module stays as it was.

        Args:
            *shapes: Data inputs, one by one; or MXNet's positional arguments.
            data_shapes: DataDesc or (name, shape) for each data input.
            label_shapes: The same for labels; [] and None mean none.
            for_training: Whether gradients can be computed.
            inputs_need_grad: Whether data inputs get gradients.
            force_rebind: Bind anew if bound; parameters and optimizer are kept.
            shared_module: A bound and initialized module on the same contexts, whose
                parameters and optimizer are shared.
            grad_req: "write", "add" or "null" for all parameters, or a list in
                argument order, or a dict by name.

        Raises:
            ArgumentTypeError: descriptions of the wrong form.
            NameMismatchError: data names differ from the module's.
            ArgumentError: sizes that cannot be, or differ between inputs.
            ShapeError: the graph contradicts the shapes.
            DeviceError: a context does not exist.
            ScopeError: outside any runtime.
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
        await self._bind(**arguments)

    async def _bind(
        self,
        data_shapes: Any,
        label_shapes: Any = None,
        for_training: bool = True,
        inputs_need_grad: bool = False,
        force_rebind: bool = False,
        shared_module: Module | None = None,
        grad_req: Any = "write",
    ) -> None:
        runtime = self._scope.runtime("bind")
        async with self._changing:
            if self.binded and not force_rebind:
                self.logger.warning("Already bound, ignoring bind()")
                return
            if inputs_need_grad and not for_training:
                raise ArgumentError(
                    "inputs_need_grad=True needs for_training=True: without training "
                    "there are no gradients"
                )
            data = parse_shapes("data_shapes", data_shapes)
            labels = parse_shapes("label_shapes", label_shapes)
            check_described("data", data, self._data_names, True)
            if labels:
                check_described("label", labels, self._label_names, False)
            batch_size([*data, *labels])
            shared = self._check_shared(shared_module)
            template = self._template(
                for_training, inputs_need_grad, grad_req, [d.name for d in data]
            )
            executors = await Executors.create(template, runtime, data, labels, shared)
            optimization = self._optimization
            try:
                self._scope.check_open("bind")  # it may have been closed meanwhile
                if shared is None and self.params_initialized:
                    optimization = await self._carry_over(executors)
            except BaseException:
                with trio.CancelScope(shield=True):
                    await executors.aclose()
                raise
            old, self._executors = self._executors, executors
            self._optimization = optimization
            self._forwarded = None
            self.binded = True
            self.for_training = for_training
            self.inputs_need_grad = inputs_need_grad
            self._loaded = None
            if shared_module is not None:
                self.params_initialized = True
                if shared_module.optimizer_initialized:
                    self.borrow_optimizer(shared_module)
            if old is not None:
                with trio.CancelScope(shield=True):
                    await old.aclose()

    def _template(
        self,
        for_training: bool,
        inputs_need_grad: bool,
        grad_req: Any,
        data: Sequence[str],
    ) -> Template:
        if self._seed is None:
            self._seed = random.draw_seed()
        arguments = self._symbol.list_arguments()
        graph = self._symbol.graph
        layouts = [e.node.text.get("__layout__") for e in graph.outputs]
        return Template(
            graph=graph,
            devices=self._contexts,
            workload=self._workload,
            placements=self._placements,
            on_worker_death=self._on_worker_death,
            label_names=tuple(n for n in self._label_names if n in arguments),
            state_names=tuple(self._state_names),
            gradients=gradient_requests.resolve(
                grad_req,
                arguments,
                data=data,
                inputs={*data, *self._label_names, *self._state_names},
                fixed=self._fixed_names,
                for_training=for_training,
                inputs_need_grad=inputs_need_grad,
            ),
            for_training=for_training,
            seed=self._seed,
            output_axes=tuple(DataDesc.get_batch_axis(layout) for layout in layouts),
            in_flight=self.in_flight_limit,
        )

    def _check_shared(self, shared_module: Any) -> Any:
        """The executor group to share parameters with, or None."""
        if shared_module is None:
            return None
        if not isinstance(shared_module, Module):
            raise ArgumentTypeError(
                f"`shared_module` must be a Module, not {type(shared_module).__name__}"
            )
        if not (shared_module.binded and shared_module.params_initialized):
            raise ModuleStateError(
                "`shared_module` must be bound and initialized before it is shared: "
                "`await shared.bind(...)`, then `await shared.init_params()`"
            )
        if shared_module._contexts != self._contexts:
            raise ArgumentError(
                f"`shared_module` runs on {listed(shared_module._contexts)} and this "
                f"module on {listed(self._contexts)}; shared parameters need the same "
                "contexts"
            )
        if shared_module._placements != self._placements:
            raise ArgumentError(
                f"`shared_module` has group2ctxs {shared_module._placements} and this "
                f"module {self._placements}; shared parameters need the same"
            )
        return shared_module._bound("bind").first.group

    async def _carry_over(self, executors: Executors) -> Optimization | None:
        """Copy values into new executors: from a checkpoint, or from the old ones."""
        new = executors.first.group
        if self._loaded is not None:
            slots = self._slots(executors)
            for slot, given in zip(slots, self._loaded, strict=True):
                parameters.check_extra(given, slot.shapes)
            await new.write_parameters(
                *(
                    parameters.first_values(slot, given, None, allow_missing=False)
                    for slot, given in zip(slots, self._loaded, strict=True)
                )
            )
            return None
        old = self._bound("bind")
        await new.write_parameters(*await old.first.group.read_parameters())
        new.training_forwards = old.first.group.training_forwards
        if self._optimization is None:
            return None
        return await self._optimization.moved(old, executors)

    async def reshape(self, data_shapes: Any, label_shapes: Any = None) -> None:
        """Use other input shapes from now on; parameters and optimizer stay.

        `forward` does this by itself. If it fails or is cancelled, nothing changes.

        Raises:
            InputError: the shapes do not fit the parameters.
        """
        self._need_bound("reshape")
        data = parse_shapes("data_shapes", data_shapes)
        labels = parse_shapes("label_shapes", label_shapes)
        check_described("data", data, self._data_names, True)
        batch_size([*data, *labels])
        async with self._changing:
            executors = self._bound("reshape")
            executors.use(await executors.reshaped(data, labels))

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
        """Give every parameter and auxiliary state a value.

        Values are taken from the dicts, or made by the initializer in a thread, in the
        order of the names; then all are written at once. If that fails or is
        cancelled, nothing changes.

        Args:
            initializer: Fills what is not given; Uniform(0.01) unless given.
            arg_params: Values of parameters, copied.
            aux_params: Values of auxiliary states, copied.
            allow_missing: Whether the dicts may lack some.
            force_init: Do it even if it was done before.
            allow_extra: Whether the dicts may have more.

        Raises:
            ModuleStateError: not bound.
            MissingParameterError: the dicts lack one.
            ExtraParameterError: the dicts have one too many.
            ArgumentError: a value has the wrong shape.
        """
        if initializer is None and arg_params is None and aux_params is None:
            from asyncmod.initializer import Uniform

            initializer = Uniform(0.01)
        await self._set_values(
            initializer, arg_params, aux_params, allow_missing, force_init, allow_extra
        )

    async def set_params(
        self,
        arg_params: Mapping[str, Any] | None,
        aux_params: Mapping[str, Any] | None,
        allow_missing: bool = False,
        force_init: bool = True,
        allow_extra: bool = False,
    ) -> None:
        """Set parameters and auxiliary states from dicts; see `init_params`.

        With `allow_missing` what the dicts lack, or a dict that is None, keeps its
        value.
        """
        if allow_missing:
            arg_params, aux_params = arg_params or {}, aux_params or {}
        await self._set_values(
            None, arg_params, aux_params, allow_missing, force_init, allow_extra
        )

    async def _set_values(
        self,
        initializer: Any,
        arg_params: Mapping[str, Any] | None,
        aux_params: Mapping[str, Any] | None,
        allow_missing: bool,
        force_init: bool,
        allow_extra: bool,
    ) -> None:
        self._need_bound("init_params")
        async with self._changing:
            if self.params_initialized and not force_init:
                warnings.warn(
                    "Parameters already initialized and force_init=False. init_params "
                    "call ignored.",
                    stacklevel=3,
                )
                return
            executors = self._bound("init_params")
            arguments, auxiliaries = self._slots(executors)
            if not allow_extra:
                parameters.check_extra(arg_params, arguments.shapes)
                parameters.check_extra(aux_params, auxiliaries.shapes)

            def make() -> tuple[dict[str, Array], dict[str, Array]]:
                return (
                    parameters.first_values(
                        arguments, arg_params, initializer, allow_missing
                    ),
                    parameters.first_values(
                        auxiliaries, aux_params, initializer, allow_missing
                    ),
                )

            values = await trio.to_thread.run_sync(make)
            await executors.first.group.write_parameters(*values)
            self.params_initialized = True

    def _slots(self, executors: Executors) -> tuple[parameters.Slots, parameters.Slots]:
        """What needs values: parameters and auxiliary states."""
        group = executors.first.group
        attributes = self._symbol.attr_dict()
        return (
            parameters.Slots(
                group.parameter_shapes, group.parameter_dtypes, attributes
            ),
            parameters.Slots(
                group.auxiliary_shapes, group.auxiliary_dtypes, attributes
            ),
        )

    async def get_params(self) -> tuple[Parameters, Parameters]:
        """Copies of parameters and auxiliary states, as of the last completed call.

        Auxiliary states are the mean over the devices, as in MXNet.

        Raises:
            ModuleStateError: there are no values yet.
        """
        if not self.params_initialized:
            self._need_params("get_params")
        if self._loaded is not None:
            return await trio.to_thread.run_sync(_copies, *self._loaded)
        group = self._bound("get_params").first.group
        arguments, auxiliaries = await group.read_parameters()
        return (
            {name: face(array) for name, array in arguments.items()},
            {name: face(array) for name, array in auxiliaries.items()},
        )

    # Checkpoints

    @classmethod
    async def load(
        cls,
        prefix: Path_,
        epoch: int,
        load_optimizer_states: bool = False,
        **options: Any,
    ) -> Self:
        """A module from a checkpoint; it has parameters, and must be bound.

        Args:
            prefix: What the file names begin with.
            epoch: The number in `PREFIX-NNNN.params`.
            load_optimizer_states: Load `PREFIX-NNNN.states` in `init_optimizer`.
            **options: Arguments of Module.

        Raises:
            OSError: a file cannot be read, or is damaged.
        """
        symbol, arguments, auxiliaries = await trio.to_thread.run_sync(
            mxnet_checkpoint.load_checkpoint, prefix, epoch
        )
        module = cls(symbol, **options)
        module._loaded = (arguments, auxiliaries)
        module.params_initialized = True
        if load_optimizer_states:
            module._loaded_states = Path(f"{fspath(prefix)}-{epoch:04d}.states")
        return module

    async def save_checkpoint(
        self,
        prefix: Path_,
        epoch: int,
        save_optimizer_states: bool = False,
        remove_amp_cast: bool = True,
    ) -> None:
        """Write symbol, parameters and, if wanted, optimizer states, of one moment.

        Args:
            prefix: What the file names begin with.
            epoch: The number in `PREFIX-NNNN.params`.
            save_optimizer_states: Write `PREFIX-NNNN.states` too.
            remove_amp_cast: Leave casts of mixed precision out of the symbol.
        """
        optimizer_content = None
        arguments: Mapping[str, Any]
        auxiliaries: Mapping[str, Any]
        if save_optimizer_states:
            optimization = self._need_optimizer("save_optimizer_states")
            copied, optimizer_content = await optimization.snapshot(
                self._bound("save_checkpoint")
            )
            arguments, auxiliaries = copied.parameters, copied.mean_auxiliaries()
        else:
            arguments, auxiliaries = await self.get_params()
        name = f"{fspath(prefix)}-{epoch:04d}"

        def write() -> None:
            mxnet_checkpoint.write_checkpoint(
                prefix,
                epoch,
                self._symbol,
                arguments,
                auxiliaries,
                remove_amp_cast,
            )
            if optimizer_content is not None:
                optimizer_states.write(f"{name}.states", optimizer_content)

        # All files by one call, so that a cancelled one has written all or none.
        await trio.to_thread.run_sync(write)
        mxnet_checkpoint.log_saved(self.logger, prefix, epoch)
        if save_optimizer_states:
            self.logger.info('Saved optimizer state to "%s"', f"{name}.states")

    # Optimizer

    async def init_optimizer(
        self,
        kvstore: Any = "local",
        optimizer: Any = "sgd",
        optimizer_params: Any = (("learning_rate", 0.01),),
        force_init: bool = False,
    ) -> None:
        """Install an optimizer.

        Gradients are summed over the devices and the update is the same on all,
        whatever the store. An optimizer given by name gets `rescale_grad` = 1 / batch
        size unless `optimizer_params` has one.

        Args:
            kvstore: None, "local", "device", ... or a KVStore.
            optimizer: A name, or an mx.optimizer.Optimizer.
            optimizer_params: Settings for an optimizer given by name: a dict or pairs.
            force_init: Replace the optimizer if there is one.

        Raises:
            ModuleStateError: not bound, or without parameters.
            ArgumentTypeError: an argument of the wrong type.
            ArgumentError, OptimizerError: a value that cannot be, such as NaN.
            UnsupportedError: a distributed store.
        """
        self._need_params("init_optimizer")
        async with self._changing:
            if self.optimizer_initialized and not force_init:
                self.logger.warning("optimizer already initialized, ignoring...")
                return
            executors = self._bound("init_optimizer")
            new = await Optimization.install(
                executors,
                self._symbol,
                self._param_names,
                kvstore,
                optimizer,
                optimizer_params,
            )
            if self._loaded_states is not None:
                try:
                    await new.load(executors, self._loaded_states)
                except BaseException:
                    await self._forget(executors, new)
                    raise
                self._loaded_states = None
            old, self._optimization = self._optimization, new
            self.optimizer_initialized = True
            if old is not None:
                await self._forget(executors, old)

    async def _forget(self, executors: Executors, optimization: Optimization) -> None:
        """Free the states of an optimizer that is not used any more."""
        with trio.CancelScope(shield=True):
            await executors.first.group.forget(optimization.updater)

    def borrow_optimizer(self, shared_module: Module) -> None:
        """Use the optimizer of another module that shares its parameters.

        Raises:
            ModuleStateError: that module has none.
        """
        if not shared_module.optimizer_initialized:
            raise ModuleStateError(
                "`borrow_optimizer` needs a module with an optimizer: "
                "`await shared.init_optimizer()` first"
            )
        optimization = shared_module._need_optimizer("borrow_optimizer")
        self._optimization = optimization.part(self._param_names)
        self.optimizer_initialized = True

    async def save_optimizer_states(self, fname: Path_) -> None:
        """Write the optimizer's counts and states, in asyncmod's own format.

        Raises:
            ModuleStateError: there is no optimizer.
            OSError: the file cannot be written.
        """
        optimization = self._need_optimizer("save_optimizer_states")
        await optimization.save(self._bound("save_optimizer_states"), fname)

    async def load_optimizer_states(self, fname: Path_) -> None:
        """Set the optimizer's counts and states from such a file.

        Its settings stay: the learning rate, for example, is that of `init_optimizer`.

        Raises:
            ModuleStateError: there is no optimizer.
            OptimizerStatesError: the file is not of this format.
            OSError: it cannot be read.
        """
        optimization = self._need_optimizer("load_optimizer_states")
        await optimization.load(self._bound("load_optimizer_states"), fname)

    # Computation

    async def forward(self, data_batch: Any, is_train: bool | None = None) -> None:
        """Run the graph on a batch; other shapes than the bound ones are welcome.

        Args:
            data_batch: A DataBatch, or anything with `data` and perhaps `label`; labels
                may be left out unless training. Or one such batch per context.
            is_train: Whether layers behave as in training; `for_training` unless given.

        Raises:
            ModuleStateError: not bound, or without parameters.
            InputError: the batch does not fit; nothing was run.
        """
        self._need_params("forward")
        training = self.for_training if is_train is None else is_train
        if training:
            self._need_training("forward(is_train=True)")
        bound, inputs = await self._route(data_batch, training)
        recording = self._monitoring.begin()
        bound.users += 1
        try:
            await bound.group.forward(inputs, training, recording)
        finally:
            bound.users -= 1
        self._ran(bound, training)
        if recording is not None:
            recording.deliver()

    async def backward(self, out_grads: Any = None) -> None:
        """Compute gradients; the running statistics of BatchNorm change now.

        Args:
            out_grads: Gradient of each output, for outputs that are no loss: an array
                or a list of them, for the whole batch.

        Raises:
            ModuleStateError: not bound for training, or no training forward before.
            GradientError: an output needs a gradient.
        """
        self._need_params("backward")
        self._need_training("backward")
        bound = self._forwarded
        if bound is None or not self._forwarded_in_training:
            raise ModuleStateError(
                "`backward` needs a forward in training mode before it: "
                "`await mod.forward(batch, is_train=True)`"
            )
        heads: dict[str, Array] | None = None
        if out_grads is not None:
            heads = self._heads(out_grads)
        recording = self._monitoring.begin()
        await bound.group.backward(heads, recording)
        if recording is not None:
            recording.deliver()

    async def update(self) -> None:
        """Update the parameters by the gradients, on all devices or on none.

        Raises:
            ModuleStateError: there is no optimizer.
        """
        await self._update(None)

    async def step(self, data_batch: Any) -> None:
        """Forward, backward and update as one message to each device.

        If any device fails to compute, no parameter changes. Cancelled, the step was
        withdrawn on all devices or has run to its end on all.

        Raises:
            ModuleStateError: not bound for training, or without optimizer.
            InputError: the batch does not fit; nothing was run.
        """
        executors, optimization = self._executors, self._optimization
        if executors is None or optimization is None or not self.for_training:
            optimization = self._need_optimizer("step")
            self._need_training("step")
            executors = self._bound("step")
        bound = executors.current
        inputs = bound.match_batch(data_batch, True)
        if inputs is None:
            bound, inputs = await self._route(data_batch, True)
        recording = self._monitoring.begin()
        bound.users += 1
        try:
            await bound.group.step(inputs, optimization.updater, recording)
        finally:
            bound.users -= 1
        self._forwarded, self._forwarded_in_training = bound, True
        if bound is not executors.current:
            executors.use(bound)
        if recording is not None:
            recording.deliver()

    async def prepare(self, data_batch: Any, sparse_row_id_fn: Any = None) -> None:
        """Get ready for a batch that comes next.

        In MXNet `sparse_row_id_fn` says which rows of row-sparse parameters are to be
        pulled from the store. Here devices share whole, current parameters, so that
        what it returns is only checked.

        Args:
            data_batch: The batch.
            sparse_row_id_fn: Called with the batch; gives a dict from parameter to row
                numbers.

        Raises:
            ArgumentTypeError: it gave no dict.
            NameMismatchError: there is no such parameter.
            ArgumentError: it has no such rows.
        """
        if sparse_row_id_fn is not None:
            shapes = self._bound("prepare").first.group.parameter_shapes
            sparse_inputs.check_row_ids(sparse_row_id_fn(data_batch), shapes)

    async def zero_grad(self) -> None:
        """Set all gradients to zero; for `grad_req="add"`."""
        self._need_bound("zero_grad")
        bound = self._forwarded or self._bound("zero_grad").current
        await bound.group.zero_gradients()

    # Results

    async def get_outputs(self, merge_multi_context: bool = True) -> list[Any]:
        """Outputs of the last forward or step.

        Returns:
            One array per output; with `merge_multi_context=False` one list per output
            with one array per context.

        Raises:
            ModuleStateError: there was no forward.
        """
        group = self._need_forward("get_outputs").group
        if merge_multi_context:
            return [face(array) for array in await group.outputs()]
        return [
            [face(array) for array in arrays] for arrays in await group.device_outputs()
        ]

    async def get_input_grads(self, merge_multi_context: bool = True) -> list[Any]:
        """Gradients of the data inputs, in bound order; None where not wanted.

        Raises:
            ModuleStateError: not bound with inputs_need_grad=True, or no forward.
        """
        bound = self._need_forward("get_input_grads")
        if not self.inputs_need_grad:
            raise ModuleStateError(
                "`get_input_grads` needs `await mod.bind(..., inputs_need_grad=True)`"
            )
        names = [description.name for description in bound.data]
        if merge_multi_context:
            merged = await bound.group.input_gradients()
            return [face(merged[n]) if n in merged else None for n in names]
        per_device = await bound.group.device_input_gradients()
        return [
            [face(array) for array in per_device[n]] if n in per_device else None
            for n in names
        ]

    async def get_grads(self) -> dict[str, Any]:
        """Gradient of each parameter, summed over the devices; null ones are absent.

        Row-sparse gradients (of an Embedding with `sparse_grad=True`, of what a CSR
        matrix is multiplied by) come as `mx.nd.sparse.RowSparseNDArray`, as in MXNet:
        the rows that are there; `np.asarray` makes them dense.
        """
        self._need_bound("get_grads")
        bound = self._forwarded or self._bound("get_grads").current
        gradients = await bound.group.gradients()
        return {
            name: face(gradient) if isinstance(gradient, np.ndarray) else gradient
            for name, gradient in gradients.items()
        }

    async def get_states(self, merge_multi_context: bool = True) -> list[Any]:
        """Values of the state inputs, in the order of `state_names`.

        Returns:
            One array per state, merged along its batch axis; with
            `merge_multi_context=False` a list per state with one array per context.
        """
        self._need_params("get_states")
        group = self._bound("get_states").current.group
        states = await group.get_states()
        if merge_multi_context:
            return [face(array) for array in merged(group, states)]
        return [[face(array) for array in parts] for parts in states.values()]

    async def set_states(self, states: Any = None, value: float | None = None) -> None:
        """Set the state inputs for every forward from now on; zero until then.

        Modules that share parameters, such as buckets, share the states too.

        Args:
            states: Per state an array for the whole batch, or a list with one array
                per context, such as `get_outputs(merge_multi_context=False)` has.
            value: One number for all elements of all states, for batches of any shape.

        Raises:
            ArgumentError: not exactly one of `states` and `value`, or not one entry
                per state.
            InputError, ShapeError: an array of the wrong shape.
        """
        self._need_params("set_states")
        check_one(states, value)
        group = self._bound("set_states").current.group
        parts = None
        if states is not None:
            check_count(states, self._state_names)
            parts = per_device(group, states)
        await group.set_states(parts, value)

    def install_monitor(self, mon: Any) -> None:
        """Let a monitor see what is inside; it stays when the module is bound anew.

        Args:
            mon: An `mx.mon.Monitor`; installed twice, it still reports once.

        Raises:
            ModuleStateError: not bound.
            ArgumentTypeError: `mon` is no monitor.
        """
        self._need_bound("install_monitor")
        self._monitoring.install(mon)

    # For the loops, and for modules that are made of modules

    def _parameter_names(self) -> list[str]:
        return [*self._param_names, *self._symbol.list_auxiliary_states()]

    def _held_states(self) -> list[str]:
        return self._state_names

    def _trained_names(self) -> list[str]:
        return [name for name in self._param_names if name not in self._fixed_names]

    def _check_accumulation(self) -> None:
        gradients = self._bound("fit").template.gradients
        added = [n for n in self._trained_names() if gradients[n] == "add"]
        if added:
            raise ArgumentError(
                f"`accumulate` adds gradients up by itself, and `{added[0]}` is bound "
                "with grad_req='add', which would count them again: bind with "
                "grad_req='write'"
            )

    async def _update(self, part: Part | None) -> None:
        optimization = self._need_optimizer("update")
        self._need_training("update")
        bound = self._forwarded or self._bound("update").current
        await bound.group.update(optimization.updater_for(part), part)

    async def _dispatch_step(self, batch: Any, part: Part | None = None) -> Step:
        updater = self._need_optimizer("fit").updater_for(part)
        self._need_training("fit")
        bound, inputs = await self._route(batch, True)
        bound.users += 1
        try:
            if updater.shares is not None:
                await bound.group.prepare(updater)
            await bound.group.acquire_slot()
        finally:
            bound.users -= 1
        recording = self._monitoring.begin()
        pending = bound.group.dispatch_step(
            inputs, updater, observe=recording, part=part
        )
        executors = self._bound("fit")
        before = self._forwarded, self._forwarded_in_training, executors.current

        def withdrawn() -> None:
            if self._forwarded is bound:
                self._forwarded, self._forwarded_in_training, current = before
                executors.use(current)

        pending.on_withdrawn = withdrawn
        self._ran(bound, True)
        if recording is not None:
            await recording.complete(pending)
        return pending

    async def _dispatch_predict(self, batch: Any) -> Step:
        bound, inputs = await self._route(batch, False)
        return bound.group.dispatch_predict(inputs)

    async def _gather_state(self, staging: Staging, prefix: str = "") -> State:
        return await training_state.gather(self, staging, prefix)

    async def _put_back_state(
        self, arrays: Mapping[str, Array], state: Mapping[str, Any], prefix: str = ""
    ) -> None:
        await training_state.put_back(self, arrays, state, prefix)

    async def _synchronize(self) -> None:
        if len(self._contexts) < 2:
            return
        group = self._bound("fit").first.group
        if group.auxiliary_names:
            _, auxiliaries = await group.read_parameters()
            await group.write_parameters({}, auxiliaries)

    def _label_descriptions(self) -> Sequence[DataDesc]:
        return self._bound("update_metric").current.labels

    def _slices(self, rows: int) -> Sequence[int]:
        return [s.stop - s.start for s in split(rows, self._workload)]

    def _output_axes(self) -> Sequence[int]:
        return self._bound("update_metric").template.output_axes

    # Checks

    async def _route(
        self, batch: Any, training: bool
    ) -> tuple[Bound, dict[str, Array]]:
        """The executors for a batch, and its inputs."""
        executors = self._bound("forward")
        inputs = executors.current.match_batch(batch, training)
        if inputs is not None:
            return executors.current, inputs
        return await executors.route(batch, training)

    def _ran(self, bound: Bound, training: bool) -> None:
        self._forwarded, self._forwarded_in_training = bound, training
        self._bound("forward").use(bound)

    def _heads(self, out_grads: Any) -> dict[str, Array]:
        gradients = (
            list(out_grads) if isinstance(out_grads, list | tuple) else [out_grads]
        )
        names = self.output_names
        if len(gradients) != len(names):
            raise InputError(
                f"`out_grads` has {len(gradients)} arrays for {len(names)} outputs: "
                f"{', '.join(names)}"
            )
        return {
            name: as_array(f"out_grads of {name}", gradient)
            for name, gradient in zip(names, gradients, strict=True)
            if gradient is not None
        }

    def _bound(self, call: str) -> Executors:
        if self._executors is None:
            self._scope.check_open(call)
            self._need_bound(call)
            raise AssertionError("bound modules have executors")
        return self._executors

    def _need_training(self, call: str) -> None:
        if not self.for_training:
            raise ModuleStateError(
                f"`{call}` needs a module that is bound for training: "
                "`await mod.bind(..., for_training=True, force_rebind=True)`"
            )

    def _need_forward(self, call: str) -> Bound:
        self._need_params(call)
        if self._forwarded is None:
            raise ModuleStateError(
                f"`{call}` needs a forward before it: `await mod.forward(batch)`"
            )
        return self._forwarded

    def _need_optimizer(self, call: str) -> Optimization:
        self._need_params(call)
        if self._optimization is None:
            raise ModuleStateError(
                f"`{call}` needs an optimizer: `await mod.init_optimizer()` first"
            )
        return self._optimization


def _copies(
    arguments: Mapping[str, Array], auxiliaries: Mapping[str, Array]
) -> tuple[Parameters, Parameters]:
    return (
        {name: face(np.array(array)) for name, array in arguments.items()},
        {name: face(np.array(array)) for name, array in auxiliaries.items()},
    )
