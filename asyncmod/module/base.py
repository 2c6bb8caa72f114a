"""BaseModule: the state machine of all modules, with fit, score and predict on it.

A subclass defines what its graph does with a batch (`bind`, `forward`, `backward`,
`update`, ...); everything here stands on those members, and on what the loops ask of
the module's `inside`.

Next: `asyncmod.module.fitting`, and `asyncmod.module.inside`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing
from os import PathLike
from typing import Any, ClassVar

import trio

from asyncmod import log
from asyncmod.checkpoint import Checkpoint
from asyncmod.checkpoint.staging import Staging
from asyncmod.errors import (
    ModuleStateError,
    UnsupportedError,
)
from asyncmod.history import History
from asyncmod.interop import mxnet_checkpoint
from asyncmod.io.batch import DataBatch, DataDesc
from asyncmod.io.slices import whole
from asyncmod.module import counting, fitting, metrics, prediction, requirements, score
from asyncmod.module.batches import Array
from asyncmod.module.callbacks import Callbacks, as_callbacks
from asyncmod.module.flight import check_in_flight, reading
from asyncmod.module.inside import Inside, State
from asyncmod.module.plain_inside import PlainInside
from asyncmod.module.user_arrays import Parameters
from asyncmod.nd import NDArray


class BaseModule:
    """What all modules have in common.

    Args:
        logger: A `logging.Logger` or a structlog logger; the default is
            `structlog.get_logger("asyncmod")`.

    Attributes:
        binded: Executors exist: shapes are known and memory is there.
        for_training: Bound for training, so that gradients can be computed.
        inputs_need_grad: Bound so that data inputs get gradients too.
        params_initialized: Parameters have values.
        optimizer_initialized: `update` may be called.
        inside: What loops, and modules made of modules, ask of it besides.
    """

    in_flight_limit: ClassVar[int] = 2

    def __init__(self, logger: Any = None) -> None:
        self.logger: log.Logger = log.DEFAULT if logger is None else logger
        self.binded = False
        self.for_training = False
        self.inputs_need_grad = False
        self.params_initialized = False
        self.optimizer_initialized = False
        self.inside: Inside = PlainInside(
            self, self._gather_state, self._put_back_state
        )
        self._symbol: Any = None

    # What the module is made of

    @property
    def symbol(self) -> Any:
        """The module's symbol; None if it has none of its own."""
        return self._symbol

    @property
    def data_names(self) -> list[str]:
        """Names of the data inputs."""
        raise self._abstract("data_names")

    @property
    def label_names(self) -> list[str]:
        """Names of the labels."""
        raise self._abstract("label_names")

    @property
    def output_names(self) -> list[str]:
        """Names of the outputs."""
        raise self._abstract("output_names")

    @property
    def data_shapes(self) -> list[DataDesc]:
        """Descriptions of the data inputs; of the last shapes used."""
        raise self._abstract("data_shapes")

    @property
    def label_shapes(self) -> list[DataDesc]:
        """Descriptions of the labels; [] without labels or when not training."""
        raise self._abstract("label_shapes")

    @property
    def output_shapes(self) -> list[tuple[str, tuple[int, ...]]]:
        """Name and shape of each merged output."""
        raise self._abstract("output_shapes")

    # What a subclass defines

    async def bind(self, *shapes: Any, **options: Any) -> None:
        """Make executors for these input shapes; see Module.bind."""
        raise self._abstract("bind")

    async def init_params(
        self,
        initializer: Any = None,
        arg_params: Mapping[str, Any] | None = None,
        aux_params: Mapping[str, Any] | None = None,
        allow_missing: bool = False,
        force_init: bool = False,
        allow_extra: bool = False,
    ) -> None:
        """Give the parameters their first values; see Module.init_params."""
        raise self._abstract("init_params")

    async def get_params(self) -> tuple[Parameters, Parameters]:
        """Copies of the parameters and of the auxiliary states, always current."""
        raise self._abstract("get_params")

    async def init_optimizer(
        self,
        kvstore: Any = "local",
        optimizer: Any = "sgd",
        optimizer_params: Any = (("learning_rate", 0.01),),
        force_init: bool = False,
    ) -> None:
        """Install an optimizer; see Module.init_optimizer."""
        raise self._abstract("init_optimizer")

    async def forward(self, data_batch: Any, is_train: bool | None = None) -> None:
        """Run the graph on a batch."""
        raise self._abstract("forward")

    async def backward(self, out_grads: Any = None) -> None:
        """Compute the gradients of the last training forward."""
        raise self._abstract("backward")

    async def update(self) -> None:
        """Update the parameters by their gradients."""
        raise self._abstract("update")

    async def get_outputs(self, merge_multi_context: bool = True) -> list[Any]:
        """Outputs of the last forward."""
        raise self._abstract("get_outputs")

    async def get_input_grads(self, merge_multi_context: bool = True) -> list[Any]:
        """Gradients of the data inputs of the last backward."""
        raise self._abstract("get_input_grads")

    async def get_grads(self) -> Parameters:
        """Gradient of each parameter, summed over the devices."""
        raise self._abstract("get_grads")

    async def zero_grad(self) -> None:
        """Set all gradients to zero."""
        raise self._abstract("zero_grad")

    def install_monitor(self, mon: Any) -> None:
        """Let an `mx.mon.Monitor` see what is inside; needs a bound module."""
        raise self._abstract("install_monitor")

    # What stands on that

    async def set_params(
        self,
        arg_params: Mapping[str, Any] | None,
        aux_params: Mapping[str, Any] | None,
        allow_missing: bool = False,
        force_init: bool = True,
        allow_extra: bool = False,
    ) -> None:
        """Set parameters from dicts; `init_params` without an initializer."""
        await self.init_params(
            None, arg_params, aux_params, allow_missing, force_init, allow_extra
        )

    async def save_params(self, fname: str | PathLike[str]) -> None:
        """Write all values in MXNet's `.params` format; whole or not at all.

        Raises:
            OSError: the file cannot be written.
        """
        values = await self.get_params()
        await trio.to_thread.run_sync(mxnet_checkpoint.write_parameters, fname, *values)

    async def load_params(self, fname: str | PathLike[str]) -> None:
        """Set all values from a `.params` file.

        Raises:
            InvalidParameterFileError: the file is damaged, or not of this format.
            OSError: it cannot be read.
        """
        self._need_bound("load_params")
        values = await trio.to_thread.run_sync(mxnet_checkpoint.read_parameters, fname)
        await self.set_params(*values)

    async def get_states(self, merge_multi_context: bool = True) -> list[Any]:
        """Values of the state inputs; [] for modules without states."""
        self._need_params("get_states")
        return []

    async def set_states(self, states: Any = None, value: float | None = None) -> None:
        """Set the state inputs; only for modules that have some."""
        self._need_params("set_states")
        if states or value:
            raise ModuleStateError(f"{type(self).__name__} has no states to set")

    async def prepare(self, data_batch: Any, sparse_row_id_fn: Any = None) -> None:
        """Get ready for a batch that comes next; nothing to do for dense parameters."""
        if sparse_row_id_fn is not None:
            self.logger.warning(
                "sparse_row_id_fn is not invoked: parameters are dense and always whole"
            )

    async def forward_backward(self, data_batch: Any) -> None:
        """`forward(data_batch, is_train=True)`, then `backward()`."""
        await self.forward(data_batch, is_train=True)
        await self.backward()

    async def step(self, data_batch: Any) -> None:
        """Forward, backward and update of one batch."""
        await self.forward_backward(data_batch)
        await self.update()

    async def get_outputs_merged(self) -> list[NDArray]:
        """`get_outputs(merge_multi_context=True)`."""
        return await self.get_outputs(merge_multi_context=True)

    async def get_input_grads_merged(self) -> list[NDArray]:
        """`get_input_grads(merge_multi_context=True)`."""
        return await self.get_input_grads(merge_multi_context=True)

    async def update_metric(
        self, eval_metric: Any, labels: Any, pre_sliced: bool = False
    ) -> None:
        """Update a metric with the outputs of the last forward; counts every row.

        Args:
            eval_metric: The metric.
            labels: One array per label; with `pre_sliced`, a list of these per device.
            pre_sliced: Whether labels come per device.
        """
        if pre_sliced:
            slices = [DataBatch([], part) for part in labels]
            labels = (await whole(slices, (), self.inside.labels)).label
        await counting.count_outputs(self, eval_metric, labels)

    async def score(
        self,
        eval_data: Any,
        eval_metric: Any,
        num_batch: int | None = None,
        batch_end_callback: Callbacks = None,
        score_end_callback: Callbacks = None,
        reset: bool = True,
        epoch: int = 0,
        sparse_row_id_fn: Any = None,
        *,
        count_pad: bool = False,
        in_flight: int = 2,
    ) -> list[tuple[str, float]]:
        """Evaluate a metric on data.

        Args:
            eval_data: Any iterator of batches.
            eval_metric: A metric, its name, a function, or a list of these; it is
                reset first.
            num_batch: How many batches; None and -1 mean all.
            batch_end_callback: Called with a BatchEndParam after each batch; one or
                several, plain or async, as all callbacks.
            score_end_callback: Called with a BatchEndParam at the end.
            reset: Whether to reset `eval_data` first.
            epoch: What callbacks are told.
            sparse_row_id_fn: Handed to `prepare`.
            count_pad: Count the rows that only fill the last batch up, as MXNet does.
            in_flight: Batches under way at once, 1 or 2.

        Returns:
            Name and value pairs; a value is NaN if there was no batch.

        Raises:
            ModuleStateError: not bound, or without parameters.
        """
        self._need_params("score")
        metric = metrics.as_metric(eval_metric)
        batch_end = as_callbacks("batch_end_callback", batch_end_callback)
        score_end = as_callbacks("score_end_callback", score_end_callback)
        async with reading(eval_data) as batches:
            if reset:
                await batches.reset()
            await score.run(
                self,
                batches,
                metric,
                num_batch=num_batch,
                batch_end=batch_end,
                score_end=score_end,
                epoch=epoch,
                count_pad=count_pad,
                sparse_row_id_fn=sparse_row_id_fn,
                in_flight=check_in_flight(in_flight, self.in_flight_limit),
            )
        return metric.get_name_value()

    async def iter_predict(
        self,
        eval_data: Any,
        num_batch: int | None = None,
        reset: bool = True,
        sparse_row_id_fn: Any = None,
    ) -> AsyncIterator[tuple[list[NDArray], int, Any]]:
        """Yield (outputs, number, batch) for each batch; outputs without padding.

        Use it in `async with contextlib.aclosing(...)` if the loop may end early. The
        outputs belong to the caller.

        Args:
            eval_data: Any iterator of batches.
            num_batch: How many batches; None and -1 mean all.
            reset: Whether to reset `eval_data` first.
            sparse_row_id_fn: Handed to `prepare`.
        """
        self._need_params("iter_predict")
        yielding = prediction.one_by_one(
            self, eval_data, num_batch, reset, sparse_row_id_fn
        )
        async with aclosing(yielding) as predictions:
            async for outputs, nbatch, batch in predictions:
                yield outputs, nbatch, batch

    async def predict(
        self,
        eval_data: Any,
        num_batch: int | None = None,
        merge_batches: bool = True,
        reset: bool = True,
        always_output_list: bool = False,
        sparse_row_id_fn: Any = None,
        *,
        in_flight: int = 2,
        snapshot: bool = False,
    ) -> Any:
        """Outputs for all batches of an iterator, for one batch, or for one array.

        Args:
            eval_data: An iterator of batches, a DataBatch, or an array (one batch of
                the single data input).
            num_batch: How many batches; None and -1 mean all.
            merge_batches: Join the batches on the batch axis; else a list per batch.
            reset: Whether to reset `eval_data` first.
            always_output_list: A list even if there is one output.
            sparse_row_id_fn: Handed to `prepare`.
            in_flight: Batches under way at once, 1 or 2.
            snapshot: Whether all batches see the values that stand now, whatever is
                trained meanwhile; costs a copy of them. Else each batch sees those of
                some whole step.

        Returns:
            From an array: the first output. From a DataBatch: its list of outputs,
            without padding. From an iterator: the outputs of all batches, merged, as
            one array if there is one output and `always_output_list` is False, else
            as a list; [] if there was no batch; a list of lists if not merged.

        Raises:
            ModuleStateError: not bound, or without parameters.
            ArgumentError: `eval_data` is none of these, or batches cannot be merged.
            UnsupportedError: `snapshot` of anything but a Module.
        """
        self._need_params("predict")
        if snapshot:
            async with self.inside.frozen() as frozen:
                return await frozen.predict(
                    eval_data,
                    num_batch,
                    merge_batches,
                    reset,
                    always_output_list,
                    sparse_row_id_fn,
                    in_flight=in_flight,
                )
        return await prediction.of_anything(
            self,
            eval_data,
            num_batch=num_batch,
            merge_batches=merge_batches,
            reset=reset,
            always_output_list=always_output_list,
            sparse_row_id_fn=sparse_row_id_fn,
            in_flight=in_flight,
        )

    async def predict_every_batch(
        self,
        eval_data: Any,
        num_batch: int | None = None,
        reset: bool = True,
        sparse_row_id_fn: Any = None,
    ) -> list[list[NDArray]]:
        """`predict` without merging: for each batch its list of outputs."""
        self._need_params("predict_every_batch")
        return await prediction.of_each_batch(
            self, eval_data, num_batch, reset, sparse_row_id_fn
        )

    async def fit(
        self,
        train_data: Any,
        eval_data: Any = None,
        eval_metric: Any = "acc",
        epoch_end_callback: Callbacks = None,
        batch_end_callback: Callbacks = None,
        kvstore: Any = "local",
        optimizer: Any = "sgd",
        optimizer_params: Any = (("learning_rate", 0.01),),
        eval_end_callback: Callbacks = None,
        eval_batch_end_callback: Callbacks = None,
        initializer: Any = None,
        arg_params: Mapping[str, Any] | None = None,
        aux_params: Mapping[str, Any] | None = None,
        allow_missing: bool = False,
        force_rebind: bool = False,
        force_init: bool = False,
        begin_epoch: int = 0,
        num_epoch: int | None = None,
        validation_metric: Any = None,
        monitor: Any = None,
        sparse_row_id_fn: Any = None,
        *,
        count_pad: bool = False,
        in_flight: int = 2,
        accumulate: int = 1,
        progress: bool | None = None,
        checkpoint: Checkpoint | str | PathLike[str] | None = None,
        checkpoint_every: int | None = None,
        resume: str | PathLike[str] | None = None,
    ) -> History:
        """Train the module: bind, initialize, and run the epochs.

        The order of things is MXNet's, with one difference: with `in_flight=2` the
        metric of a batch and its callbacks come after the next batch is dispatched, so
        that what a callback changes acts one batch later. A callback may raise
        StopTraining: the step under way is completed and counted, then `fit` returns.

        Cancelled, `fit` withdraws what has not begun, waits for the step that runs (at
        most one), and leaves the parameters at a step boundary; the module stays
        usable.

        Args:
            train_data: Any iterator of batches; not reset before the first epoch, and
                reset after each. Its arrays may be reused for the next batch.
            eval_data: Scored after each epoch.
            eval_metric: A metric, its name, a function, or a list of these; [] counts
                nothing, and spares the copies of outputs that metrics are given.
            epoch_end_callback: Called (epoch, symbol, arg_params, aux_params).
            batch_end_callback: Called (BatchEndParam).
            kvstore: See `init_optimizer`.
            optimizer: See `init_optimizer`.
            optimizer_params: See `init_optimizer`.
            eval_end_callback: Called (BatchEndParam) at the end of each evaluation.
            eval_batch_end_callback: Called (BatchEndParam) in it.
            initializer: For parameters that have no values; Uniform(0.01) unless given.
            arg_params: First values of parameters.
            aux_params: First values of auxiliary states.
            allow_missing: Initialize what these lack.
            force_rebind: Bind anew even if bound.
            force_init: Initialize anew even if initialized.
            begin_epoch: Number of the first epoch.
            num_epoch: Number after the last epoch; must be given.
            validation_metric: For `eval_data`; `eval_metric` unless given.
            monitor: An `mx.mon.Monitor` to install; `tic` and `toc_print` are called
                around each batch, and monitored batches do not overlap with others.
            sparse_row_id_fn: Handed to `prepare`.
            count_pad: Count the rows that only fill the last batch up, as MXNet does.
            in_flight: Steps under way at once: 2, or 1 for MXNet's exact order.
            accumulate: Batches per update, whose gradients are added up: as if there
                were one batch of so many times the size. What is left of them at the
                end of an epoch makes an update, too.
            progress: Show how far it is: a bar on a terminal, if the package rich is
                installed, else a line every ten seconds to the logger. None: unless
                a callback such as Speedometer reports progress itself.
            checkpoint: Save what training needs to go on: an mx.checkpoint.Checkpoint,
                or the path and beginning of the files' names. SIGTERM and ctrl-C then
                end the training after the step under way, with a checkpoint; the
                second one ends it at once.
            checkpoint_every: Save after so many batches; after each epoch unless given.
            resume: "auto" goes on from the latest valid checkpoint, if there is one,
                bit for bit as if nothing had happened; a path from that file. Other
                arguments must be as they were.

        Returns:
            What happened, epoch by epoch.

        Raises:
            ArgumentError: no `num_epoch`, an epoch without a batch, gradients that
                cannot be accumulated since they are bound with "add"; or checkpoints of
                this name are there, and nothing said to resume.
            CheckpointError: a checkpoint could not be saved, or is of another training.
            UnsupportedError: a module that cannot accumulate.
        """
        given = dict(locals())  # what callbacks find in `BatchEndParam.locals`
        return await fitting.fit(self, given)

    # For subclasses

    async def _gather_state(self, staging: Staging, prefix: str = "") -> State:
        """Copy the training's state; see `asyncmod.module.training_state.gather`."""
        raise UnsupportedError(
            f"{type(self).__name__} does not say what its state is: define "
            "`_gather_state` and `_put_back_state`, or train without `checkpoint`"
        )

    async def _put_back_state(
        self, arrays: Mapping[str, Array], state: Mapping[str, Any], prefix: str = ""
    ) -> None:
        """Set what `_gather_state` has gathered."""
        raise self._abstract("_put_back_state")

    def _need_bound(self, call: str) -> None:
        requirements.need_bound(self, call)

    def _need_params(self, call: str) -> None:
        self._need_bound(call)
        requirements.need_params(self, call)

    def _abstract(self, member: str) -> NotImplementedError:
        name = type(self).__name__
        return NotImplementedError(
            f"{name} must define `{member}`; help({name}.{member}) tells what it does"
        )
