"""BucketingModule: one module per bucket, all over the same parameters.

Each batch names its bucket. `sym_gen(key)` makes the bucket's symbol when its first
batch comes; the new module shares parameters, gradients and optimizer state with the
default bucket, and has only its inputs, outputs and intermediate values for itself.

Next: `asyncmod.module.bucket_routing`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike
from typing import Any, Self

import trio

from asyncmod.context import Context
from asyncmod.errors import (
    ArgumentError,
)
from asyncmod.io.batch import DataDesc
from asyncmod.module import bind_arguments, bucket_files
from asyncmod.module.bucket_factory import (
    BucketFactory,
    SymbolGenerator,
    saved_or_made,
)
from asyncmod.module.bucket_inside import BucketInside
from asyncmod.module.bucket_routing import BucketRouting
from asyncmod.module.bucket_shapes import infer_labels
from asyncmod.module.buckets import Bucket, BucketReport, Buckets
from asyncmod.module.descriptions import parse_shapes
from asyncmod.module.module import Module
from asyncmod.module.scoped import ScopedModule
from asyncmod.module.user_arrays import Parameters
from runtime.devices.contract import OnDeath

Path_ = str | PathLike[str]


class BucketingModule(ScopedModule):
    """Graphs of different sizes, such as unrolled to different lengths, as one module.

    Enter it with `async with`, or use it under `mx.run` or `mx.open_runtime`. What is
    not described here does what it does in Module, on the bucket of the last forward.

    Args:
        sym_gen: Called with a bucket key, returns (symbol, data_names, label_names).
            Automatic names start at 0 in each call. It runs in a thread, except for
            the default bucket.
        default_bucket_key: The bucket that `bind` binds. It has all parameters; it need
            not be the largest.
        logger: A `logging.Logger` or a structlog logger.
        context: Where to run, as for Module.
        work_load_list: Share of each batch per context.
        fixed_param_names: Parameters that are not trained.
        state_names: Arguments that are states.
        group2ctxs: Where nodes of context groups run, as for Module.
        compression_params: Not supported: must be None.
        max_buckets: Buckets that are kept compiled, at least 3, besides those that
            other tasks are just calling; beyond it the one that was not used for
            longest is freed, and compiled again if it comes back.
        on_worker_death: As for Module.

    Raises:
        ArgumentError: no `default_bucket_key`, or `max_buckets` is below 3.
        ArgumentTypeError: `sym_gen` is no function, or returns something else.
    """

    def __init__(
        self,
        sym_gen: SymbolGenerator,
        default_bucket_key: Any = None,
        logger: Any = None,
        context: Any = None,
        work_load_list: Sequence[float] | None = None,
        fixed_param_names: Sequence[str] | None = None,
        state_names: Sequence[str] | None = None,
        group2ctxs: Any = None,
        compression_params: Any = None,
        *,
        max_buckets: int = 64,
        on_worker_death: OnDeath = "restart",
    ) -> None:
        super().__init__(logger)
        if default_bucket_key is None:
            raise ArgumentError(
                "`default_bucket_key` must be given: the key of a bucket whose symbol "
                "has all parameters"
            )
        options = {
            "logger": logger,
            "context": context,
            "work_load_list": work_load_list,
            "group2ctxs": group2ctxs,
            "compression_params": compression_params,
            "on_worker_death": on_worker_death,
        }
        self._factory = BucketFactory(
            sym_gen,
            fixed_param_names or (),
            state_names or (),
            self.scope,
            options,
        )
        default = Bucket(default_bucket_key, self._factory.default(default_bucket_key))
        self._buckets = Buckets(default, max_buckets)
        self._routing = BucketRouting(self, self._buckets, self._factory)
        self.inside = BucketInside(self, self._buckets, self._routing)

    # What it is made of

    @property
    def default_bucket_key(self) -> Any:
        """The key of the bucket that `bind` binds."""
        return self._buckets.default.key

    @property
    def current_bucket_key(self) -> Any:
        """The key of the bucket of the last forward, step or `switch_bucket`."""
        return self._buckets.current.key

    @property
    def symbol(self) -> Any:
        """The symbol of the current bucket."""
        return self._current.symbol

    @property
    def data_names(self) -> list[str]:
        """Names of the data inputs of the current bucket."""
        return self._current.data_names

    @property
    def label_names(self) -> list[str]:
        """Names of the labels of the current bucket."""
        return self._current.label_names

    @property
    def output_names(self) -> list[str]:
        """Names of the outputs of the current bucket."""
        return self._current.output_names

    @property
    def data_shapes(self) -> list[DataDesc]:
        """Descriptions of the data inputs of the current bucket."""
        return self._current.data_shapes

    @property
    def label_shapes(self) -> list[DataDesc]:
        """Descriptions of the labels of the current bucket; see Module."""
        return self._current.label_shapes

    @property
    def output_shapes(self) -> list[tuple[str, tuple[int, ...]]]:
        """Name and shape of each merged output of the current bucket."""
        return self._current.output_shapes

    @property
    def contexts(self) -> list[Context]:
        """Where all buckets run; see Module.contexts."""
        return self._default.contexts

    @property
    def optimizer(self) -> Any:
        """The optimizer, once there is one; all buckets have the same."""
        return self._default.optimizer

    def bucket_report(self) -> list[BucketReport]:
        """The buckets that are compiled now, the least recently used first.

        Raises:
            ModuleStateError: not bound.
        """
        self._need_bound("bucket_report")
        return self._buckets.report()

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
        """Compile the default bucket; arguments and errors as of Module.bind.

        With `force_rebind` all other buckets are freed; they are compiled anew when
        they are needed.

        Raises:
            ArgumentError: `shared_module` was given.
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
            raise ArgumentError("shared_module for BucketingModule is not supported")
        self.scope.runtime("bind")
        async with self._routing.changing:
            if self.binded and not arguments.get("force_rebind"):
                self.logger.warning("Already bound, ignoring bind()")
                return
            await self._default.bind(**arguments)
            self._factory.grad_req = arguments.get("grad_req", "write")
            self.binded = True
            self.for_training = self._default.for_training
            self.inputs_need_grad = self._default.inputs_need_grad
            with trio.CancelScope(shield=True):
                await self._buckets.clear()

    async def switch_bucket(
        self, bucket_key: Any, data_shapes: Any, label_shapes: Any = None
    ) -> None:
        """Make a bucket the current one; it is compiled if it is new.

        If it fails or is cancelled, the current bucket stays.

        Args:
            bucket_key: Anything that can be hashed.
            data_shapes: As for `bind`; only looked at if the bucket is new.
            label_shapes: The same for labels; those not given follow from the data
                if they can.

        Raises:
            ModuleStateError: not bound, or without parameters to share.
            MissingParameterError: the bucket has a parameter that the default bucket
                lacks.
            ShapeError: a parameter has another shape than in the default bucket.
        """
        self._need_params("switch_bucket")

        def shapes(module: Module) -> tuple[Any, Any]:
            described = parse_shapes("data_shapes", data_shapes)
            labels = label_shapes or infer_labels(module, described, self._default)
            return described, labels

        self._buckets.current = await self._routing.live(bucket_key, shapes)

    async def prepare(self, data_batch: Any, sparse_row_id_fn: Any = None) -> None:
        """Compile the bucket of a batch that comes next; the current bucket stays."""
        self._need_params("prepare")
        data_batch = await self._routing.whole(data_batch)
        with (await self._routing.of(data_batch)).in_use() as bucket:
            await bucket.module.prepare(data_batch, sparse_row_id_fn)

    async def _free(self) -> None:
        await self._buckets.aclose()

    # Parameters: those of the default bucket are those of all

    async def init_params(
        self,
        initializer: Any = None,
        arg_params: Mapping[str, Any] | None = None,
        aux_params: Mapping[str, Any] | None = None,
        allow_missing: bool = False,
        force_init: bool = False,
        allow_extra: bool = False,
    ) -> None:
        """Give every parameter a value, unless they have some; see Module."""
        self._need_bound("init_params")
        if self.params_initialized and not force_init:
            return
        await self._default.init_params(
            initializer, arg_params, aux_params, allow_missing, force_init, allow_extra
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
        await self._default.set_params(
            arg_params, aux_params, allow_missing, force_init, allow_extra
        )
        self.params_initialized = True

    async def get_params(self) -> tuple[Parameters, Parameters]:
        """Copies of parameters and auxiliary states; see Module.get_params."""
        return await self._default.get_params()

    # Checkpoints

    @classmethod
    async def load(
        cls,
        prefix: Path_,
        epoch: int,
        sym_gen: SymbolGenerator | None = None,
        default_bucket_key: Any = None,
        **options: Any,
    ) -> Self:
        """A module from a checkpoint; it has parameters, and must be bound.

        Args:
            prefix: What the file names begin with.
            epoch: The number in `PREFIX-NNNN.params`.
            sym_gen: As for the constructor; the symbols of saved buckets come from
                their files.
            default_bucket_key: As for the constructor.
            **options: Other arguments of BucketingModule.

        Raises:
            ArgumentError: `sym_gen` or `default_bucket_key` is missing.
            OSError: a file cannot be read, or is damaged.
        """
        saved_or_made({}, sym_gen, default_bucket_key)  # before files are read
        symbols, arguments, auxiliaries = await trio.to_thread.run_sync(
            bucket_files.load, prefix, epoch
        )
        return cls.load_dict(
            symbols, sym_gen, default_bucket_key, arguments, auxiliaries, **options
        )

    @classmethod
    def load_dict(
        cls,
        sym_dict: Mapping[Any, Any] | None = None,
        sym_gen: SymbolGenerator | None = None,
        default_bucket_key: Any = None,
        arg_params: Mapping[str, Any] | None = None,
        aux_params: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> Self:
        """A module from symbols by bucket key and from parameters; bind it next.

        Args:
            sym_dict: Symbols, in place of those that `sym_gen` makes for these keys.
            sym_gen: As for the constructor.
            default_bucket_key: As for the constructor.
            arg_params: Values of parameters.
            aux_params: Values of auxiliary states.
            **options: Other arguments of BucketingModule.

        Raises:
            ArgumentError: `sym_gen` or `default_bucket_key` is missing.
        """
        generate = saved_or_made(dict(sym_dict or {}), sym_gen, default_bucket_key)
        module = cls(generate, default_bucket_key, **options)
        module._default.core.loaded = (dict(arg_params or {}), dict(aux_params or {}))
        module._default.params_initialized = True
        module.params_initialized = True
        return module

    async def save_checkpoint(
        self, prefix: Path_, epoch: int, remove_amp_cast: bool = False
    ) -> None:
        """Write the parameters, and the symbol of each bucket that is compiled.

        Files are MXNet's: `PREFIX-NNNN.params`, `PREFIX-KEY-symbol.json` for each
        bucket, and `PREFIX.buckets` with the keys. Optimizer states are written by
        `save_optimizer_states`.

        Args:
            prefix: What the file names begin with.
            epoch: The number in `PREFIX-NNNN.params`.
            remove_amp_cast: Leave casts of mixed precision out of the symbols.

        Raises:
            ArgumentError: a bucket key is no integer of 32 bits: the format's keys are.
            OSError: a file cannot be written.
        """
        self._need_params("save_checkpoint")
        symbols = {bucket.key: bucket.module.symbol for bucket in self._buckets}
        bucket_files.check_keys(symbols)
        values = await self.get_params()
        await trio.to_thread.run_sync(
            bucket_files.save, prefix, epoch, symbols, *values, remove_amp_cast
        )

    # Optimizer

    async def init_optimizer(
        self,
        kvstore: Any = "local",
        optimizer: Any = "sgd",
        optimizer_params: Any = (("learning_rate", 0.01),),
        force_init: bool = False,
    ) -> None:
        """Install one optimizer for all buckets; see Module.init_optimizer."""
        self._need_params("init_optimizer")
        async with self._routing.changing:
            if self.optimizer_initialized and not force_init:
                self.logger.warning("optimizer already initialized, ignoring...")
                return
            await self._default.init_optimizer(
                kvstore, optimizer, optimizer_params, force_init
            )
            for bucket in self._buckets:
                if bucket.module is not self._default:
                    bucket.module.borrow_optimizer(self._default)
            self.optimizer_initialized = True

    async def save_optimizer_states(self, fname: Path_) -> None:
        """Write the optimizer's counts and states; see Module."""
        await self._default.save_optimizer_states(fname)

    async def load_optimizer_states(self, fname: Path_) -> None:
        """Set the optimizer's counts and states; see Module."""
        await self._default.load_optimizer_states(fname)

    # Computation

    async def forward(self, data_batch: Any, is_train: bool | None = None) -> None:
        """Run the bucket of a batch, which becomes the current one.

        Args:
            data_batch: A batch with a `bucket_key`. If the bucket is new, its shapes
                are `provide_data` and `provide_label`, or else those of the arrays.
            is_train: Whether layers behave as in training; `for_training` unless given.

        Raises:
            ModuleStateError: not bound, or without parameters.
            InputError: the batch does not fit; nothing was run.
            MissingParameterError, ShapeError: see `switch_bucket`.
        """
        self._need_params("forward")
        data_batch = await self._routing.whole(data_batch)
        with (await self._routing.of(data_batch)).in_use() as bucket:
            await bucket.module.forward(data_batch, is_train)
            self._buckets.current = bucket

    async def backward(self, out_grads: Any = None) -> None:
        """Compute gradients in the current bucket; see Module.backward."""
        self._need_params("backward")
        await self._current.backward(out_grads)

    async def update(self) -> None:
        """Update the parameters by the gradients of the current bucket; see Module."""
        self._need_params("update")
        await self._current.update()

    async def step(self, data_batch: Any) -> None:
        """Forward, backward and update as one message to each device; see Module."""
        self._need_params("step")
        data_batch = await self._routing.whole(data_batch)
        with (await self._routing.of(data_batch)).in_use() as bucket:
            await bucket.module.step(data_batch)
            self._buckets.current = bucket

    async def zero_grad(self) -> None:
        """Set all gradients to zero; for `grad_req="add"`."""
        self._need_params("zero_grad")
        await self._current.zero_grad()

    # Results, of the current bucket

    async def get_outputs(self, merge_multi_context: bool = True) -> list[Any]:
        """Outputs of the last forward or step; see Module.get_outputs."""
        self._need_params("get_outputs")
        return await self._current.get_outputs(merge_multi_context)

    async def get_input_grads(self, merge_multi_context: bool = True) -> list[Any]:
        """Gradients of the data inputs; see Module.get_input_grads."""
        self._need_params("get_input_grads")
        return await self._current.get_input_grads(merge_multi_context)

    async def get_grads(self) -> Parameters:
        """Gradient of each parameter of the current bucket; see Module.get_grads."""
        self._need_params("get_grads")
        return await self._current.get_grads()

    async def get_states(self, merge_multi_context: bool = True) -> list[Any]:
        """Values of the state inputs; see Module.get_states."""
        self._need_params("get_states")
        return await self._current.get_states(merge_multi_context)

    async def set_states(self, states: Any = None, value: float | None = None) -> None:
        """Set the state inputs of all buckets; see Module.set_states."""
        self._need_params("set_states")
        await self._current.set_states(states, value)

    async def update_metric(
        self, eval_metric: Any, labels: Any, pre_sliced: bool = False
    ) -> None:
        """Update a metric with the outputs of the last forward; see BaseModule."""
        self._need_params("update_metric")
        await self._current.update_metric(eval_metric, labels, pre_sliced)

    def install_monitor(self, mon: Any) -> None:
        """Install a monitor on all buckets, also on those that come later."""
        for bucket in self._buckets:
            bucket.module.install_monitor(mon)
        self._factory.monitor = mon

    # Inside

    @property
    def _default(self) -> Module:
        return self._buckets.default.module

    @property
    def _current(self) -> Module:
        return self._buckets.current.module
