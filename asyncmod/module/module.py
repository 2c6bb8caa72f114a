"""Module: one symbol, bound to one or several devices.

This is the face: what each member does is told here, and done in a file of its own, on
what the module holds (`Core`). Follow one batch: `step` leads to
`asyncmod.module.running`. Follow `bind` to `asyncmod.module.binding`.

Next: `asyncmod.module.running`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, Self

import trio

from asyncmod.context import Context
from asyncmod.interop import mxnet_checkpoint
from asyncmod.io.batch import DataDesc
from asyncmod.module import (
    bind_arguments,
    binding,
    module_files,
    optimizer_install,
    parameter_values,
    results,
    running,
    sparse_inputs,
)
from asyncmod.module.core import Core
from asyncmod.module.definition import Definition
from asyncmod.module.module_inside import ModuleInside
from asyncmod.module.scoped import ScopedModule
from asyncmod.module.user_arrays import Parameters
from asyncmod.optimizer import Optimizer
from runtime.devices.contract import OnDeath

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
            `WorkerDied`, with all parameters and states as before the call; "drop" goes
            on over the other contexts and does there what was under way, with a
            warning (see docs/semantics.md), and raises when the last one dies.

    Raises:
        ArgumentTypeError: `symbol` or `context` is of the wrong type.
        NameMismatchError: a data, state or fixed name is no argument of the symbol.
        ArgumentError: `work_load_list` or `group2ctxs` does not match the contexts, or
            a context stands twice, or `on_worker_death` is unknown, or "drop" with
            `group2ctxs`.
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
        definition = Definition.of(
            symbol,
            data_names,
            label_names,
            state_names,
            fixed_param_names,
            context,
            work_load_list,
            group2ctxs,
            compression_params,
            on_worker_death,
        )
        self._symbol = symbol
        self.core = Core(self, definition)
        self.inside = ModuleInside(self.core, self._twin)

    # Scope

    async def _free(self) -> None:
        await self.core.free()

    def _twin(self) -> Module:
        """Another module of the same definition."""
        definition = self.core.definition
        return Module(
            definition.symbol,
            definition.data_names,
            definition.label_names,
            self.logger,
            self.contexts,
            self.core.workload,
            state_names=definition.state_names,
            group2ctxs=list(definition.placements) or None,
            on_worker_death=definition.on_worker_death,
        )

    # What it is made of

    @property
    def data_names(self) -> list[str]:
        """Names of the data inputs."""
        return list(self.core.definition.data_names)

    @property
    def label_names(self) -> list[str]:
        """Names of the labels."""
        return list(self.core.definition.label_names)

    @property
    def output_names(self) -> list[str]:
        """Names of the outputs, in the symbol's order."""
        names: list[str] = self._symbol.list_outputs()
        return names

    @property
    def data_shapes(self) -> list[DataDesc]:
        """Descriptions of the data inputs, with the shapes of the last forward."""
        return list(self.core.need_executors("data_shapes").current.data)

    @property
    def label_shapes(self) -> list[DataDesc]:
        """Descriptions of the labels; [] without labels or when not training."""
        current = self.core.need_executors("label_shapes").current
        return list(current.labels) if self.for_training else []

    @property
    def output_shapes(self) -> list[tuple[str, tuple[int, ...]]]:
        """Name and shape of each merged output."""
        group = self.core.need_executors("output_shapes").current.group
        return list(zip(self.output_names, group.output_shapes, strict=True))

    @property
    def optimizer(self) -> Optimizer | None:
        """The optimizer, once there is one."""
        optimization = self.core.optimization
        return optimization.optimizer if optimization else None

    @property
    def contexts(self) -> list[Context]:
        """Where it runs: the given contexts, without those that were dropped.

        `bind(..., force_rebind=True)` uses all of them again.
        """
        return list(self.core.contexts)

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
        await binding.bind(self.core, **arguments)

    async def reshape(self, data_shapes: Any, label_shapes: Any = None) -> None:
        """Use other input shapes from now on; parameters and optimizer stay.

        `forward` does this by itself. If it fails or is cancelled, nothing changes.

        Raises:
            InputError: the shapes do not fit the parameters.
        """
        await binding.reshape(self.core, data_shapes, label_shapes)

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
        await parameter_values.set_values(
            self.core,
            initializer,
            arg_params,
            aux_params,
            allow_missing,
            force_init,
            allow_extra,
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
        await parameter_values.set_values(
            self.core,
            None,
            arg_params,
            aux_params,
            allow_missing,
            force_init,
            allow_extra,
        )

    async def get_params(self) -> tuple[Parameters, Parameters]:
        """Copies of parameters and auxiliary states, as of the last completed call.

        Auxiliary states are the mean over the devices, as in MXNet.

        Raises:
            ModuleStateError: there are no values yet.
        """
        return await parameter_values.get_values(self.core)

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
        module.core.loaded = (arguments, auxiliaries)
        module.params_initialized = True
        if load_optimizer_states:
            name = f"{module_files.file_name(prefix, epoch)}.states"
            module.core.loaded_states = Path(name)
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
        await module_files.save(
            self.core, prefix, epoch, save_optimizer_states, remove_amp_cast
        )

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
        await optimizer_install.install(
            self.core, kvstore, optimizer, optimizer_params, force_init
        )

    def borrow_optimizer(self, shared_module: Module) -> None:
        """Use the optimizer of another module that shares its parameters.

        Raises:
            ModuleStateError: that module has none.
        """
        optimizer_install.borrow(self.core, shared_module.core)

    async def save_optimizer_states(self, fname: Path_) -> None:
        """Write the optimizer's counts and states, in asyncmod's own format.

        Raises:
            ModuleStateError: there is no optimizer.
            OSError: the file cannot be written.
        """
        optimization = self.core.need_optimizer("save_optimizer_states")
        executors = self.core.need_executors("save_optimizer_states")
        await optimization.save(executors, fname)

    async def load_optimizer_states(self, fname: Path_) -> None:
        """Set the optimizer's counts and states from such a file, or one of MXNet.

        Its settings stay: the learning rate, for example, is that of `init_optimizer`.
        MXNet's files, which are pickles and are not run, have no counts.

        Raises:
            ModuleStateError: there is no optimizer.
            OptimizerStatesError: the file is neither, or does not fit the optimizer.
            OSError: it cannot be read.
        """
        optimization = self.core.need_optimizer("load_optimizer_states")
        executors = self.core.need_executors("load_optimizer_states")
        await optimization.load(executors, fname)

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
        await running.forward(self.core, data_batch, is_train)

    async def backward(self, out_grads: Any = None) -> None:
        """Compute gradients; the running statistics of BatchNorm change now.

        Args:
            out_grads: Gradient of each output, for outputs that are no loss: an array
                or a list of them, for the whole batch.

        Raises:
            ModuleStateError: not bound for training, or no training forward before.
            GradientError: an output needs a gradient.
        """
        await running.backward(self.core, out_grads)

    async def update(self) -> None:
        """Update the parameters by the gradients, on all devices or on none.

        Raises:
            ModuleStateError: there is no optimizer.
        """
        await running.update(self.core)

    async def step(self, data_batch: Any) -> None:
        """Forward, backward and update as one message to each device.

        If any device fails to compute, no parameter changes. Cancelled, the step was
        withdrawn on all devices or has run to its end on all.

        Raises:
            ModuleStateError: not bound for training, or without optimizer.
            InputError: the batch does not fit; nothing was run.
        """
        await running.step(self.core, data_batch)

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
            group = self.core.need_executors("prepare").first.group
            sparse_inputs.check_row_ids(
                sparse_row_id_fn(data_batch), group.parameter_shapes
            )

    async def zero_grad(self) -> None:
        """Set all gradients to zero; for `grad_req="add"`."""
        await running.zero_gradients(self.core)

    # Results

    async def get_outputs(self, merge_multi_context: bool = True) -> list[Any]:
        """Outputs of the last forward or step.

        Returns:
            One array per output; with `merge_multi_context=False` one list per output
            with one array per context.

        Raises:
            ModuleStateError: there was no forward.
        """
        return await results.outputs(self.core, merge_multi_context)

    async def get_input_grads(self, merge_multi_context: bool = True) -> list[Any]:
        """Gradients of the data inputs, in bound order; None where not wanted.

        Raises:
            ModuleStateError: not bound with inputs_need_grad=True, or no forward.
        """
        return await results.input_gradients(self.core, merge_multi_context)

    async def get_grads(self) -> dict[str, Any]:
        """Gradient of each parameter, summed over the devices; null ones are absent.

        Row-sparse gradients (of an Embedding with `sparse_grad=True`, of what a CSR
        matrix is multiplied by) come as `mx.nd.sparse.RowSparseNDArray`, as in MXNet:
        the rows that are there; `np.asarray` makes them dense.
        """
        return await results.gradients(self.core)

    async def get_states(self, merge_multi_context: bool = True) -> list[Any]:
        """Values of the state inputs, in the order of `state_names`.

        Returns:
            One array per state, merged along its batch axis; with
            `merge_multi_context=False` a list per state with one array per context.
        """
        return await results.get_states(self.core, merge_multi_context)

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
        await results.set_states(self.core, states, value)

    def install_monitor(self, mon: Any) -> None:
        """Let a monitor see what is inside; it stays when the module is bound anew.

        Args:
            mon: An `mx.mon.Monitor`; installed twice, it still reports once.

        Raises:
            ModuleStateError: not bound.
            ArgumentTypeError: `mon` is no monitor.
        """
        self._need_bound("install_monitor")
        self.core.monitoring.install(mon)
