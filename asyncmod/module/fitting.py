"""What `fit` does before its loop: checks, binds, initializes, resumes.

Next: `asyncmod.module.fit_loop`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from operator import length_hint
from os import PathLike
from typing import TYPE_CHECKING, Any

from asyncmod import log
from asyncmod.checkpoint import Checkpoint
from asyncmod.errors import ArgumentError
from asyncmod.history import History
from asyncmod.io.iterator import BatchIterator
from asyncmod.module import metrics
from asyncmod.module.callbacks import Callback, Callbacks, as_callbacks
from asyncmod.module.checkpointing import as_checkpoints
from asyncmod.module.checkpoints import Checkpoints, Position, Subjects
from asyncmod.module.fit_loop import Training
from asyncmod.module.flight import check_in_flight, reading
from asyncmod.progress import Outline, shown

if TYPE_CHECKING:
    from asyncmod.module.base import BaseModule


@dataclass(frozen=True)
class FitArguments:
    """What `BaseModule.fit` was given, whose documentation says what it means."""

    train_data: Any
    eval_data: Any
    eval_metric: Any
    epoch_end_callback: Callbacks
    batch_end_callback: Callbacks
    kvstore: Any
    optimizer: Any
    optimizer_params: Any
    eval_end_callback: Callbacks
    eval_batch_end_callback: Callbacks
    initializer: Any
    arg_params: Mapping[str, Any] | None
    aux_params: Mapping[str, Any] | None
    allow_missing: bool
    force_rebind: bool
    force_init: bool
    begin_epoch: int
    num_epoch: int | None
    validation_metric: Any
    monitor: Any
    sparse_row_id_fn: Any
    count_pad: bool
    in_flight: int
    accumulate: int
    progress: bool | None
    checkpoint: Checkpoint | str | PathLike[str] | None
    checkpoint_every: int | None
    resume: str | PathLike[str] | None

    def check(self, in_flight_limit: int) -> int:
        """Refuse what cannot be; returns the number after the last epoch.

        Raises:
            ArgumentError: no `num_epoch`, or `in_flight` or `accumulate` out of range.
        """
        if self.num_epoch is None:
            raise ArgumentError(
                "please specify number of epochs: fit(..., num_epoch=5)"
            )
        check_in_flight(self.in_flight, in_flight_limit)
        if self.accumulate < 1 or self.accumulate != int(self.accumulate):
            raise ArgumentError(
                f"`accumulate` must be a whole number from 1 on, not {self.accumulate}"
            )
        return self.num_epoch


@dataclass(frozen=True)
class FitCallbacks:
    """The callbacks of a `fit`, checked."""

    batch_end: tuple[Callback, ...]
    epoch_end: tuple[Callback, ...]
    eval_batch_end: tuple[Callback, ...]
    eval_end: tuple[Callback, ...]

    @classmethod
    def of(cls, arguments: FitArguments) -> FitCallbacks:
        """Check them in turn."""
        return cls(
            as_callbacks("batch_end_callback", arguments.batch_end_callback),
            as_callbacks("epoch_end_callback", arguments.epoch_end_callback),
            as_callbacks("eval_batch_end_callback", arguments.eval_batch_end_callback),
            as_callbacks("eval_end_callback", arguments.eval_end_callback),
        )

    @property
    def all(self) -> tuple[Callback, ...]:
        """All of them."""
        return *self.batch_end, *self.epoch_end, *self.eval_batch_end, *self.eval_end


async def fit(module: BaseModule, given: dict[str, Any]) -> History:
    """See `BaseModule.fit`.

    Args:
        module: What is trained.
        given: The arguments by name, which callbacks find in `BatchEndParam.locals`.
    """
    arguments = FitArguments(**{n: a for n, a in given.items() if n != "self"})
    num_epoch = arguments.check(module.in_flight_limit)
    callbacks = FitCallbacks.of(arguments)
    saving = as_checkpoints(
        arguments.checkpoint,
        arguments.checkpoint_every,
        arguments.resume,
        module.logger,
    )
    await log.prepare(module.logger)
    async with saving as checkpoints, reading(arguments.train_data) as batches:
        await _prepare(module, arguments, batches)
        if arguments.accumulate > 1:
            module.inside.check_accumulation()
        training = _training(module, given, arguments, callbacks, batches, checkpoints)
        begin = await checkpoints.begin(
            Subjects(
                module,
                batches,
                training.metric,
                arguments.eval_data,
                callbacks.all,
                training.history,
            ),
            Position(arguments.begin_epoch),
        )
        outline = Outline(begin.epoch, num_epoch, length_hint(arguments.train_data, 0))
        display = shown(arguments.progress, callbacks.batch_end, outline, module.logger)
        with training.history.noting_the_end():
            async with display as training.display:
                return await training.run(begin, num_epoch)


async def _prepare(
    module: BaseModule, arguments: FitArguments, batches: BatchIterator
) -> None:
    """Bind the module, and give it what it lacks: values, an optimizer, a monitor."""
    await module.bind(
        data_shapes=batches.provide_data,
        label_shapes=batches.provide_label,
        for_training=True,
        force_rebind=arguments.force_rebind,
    )
    if arguments.monitor is not None:
        module.install_monitor(arguments.monitor)
    if arguments.force_init or not module.params_initialized:
        initializer = arguments.initializer
        await module.init_params(
            initializer=initializer if initializer is not None else _uniform(),
            arg_params=arguments.arg_params,
            aux_params=arguments.aux_params,
            allow_missing=arguments.allow_missing,
            force_init=arguments.force_init,
        )
    await module.init_optimizer(
        kvstore=arguments.kvstore,
        optimizer=arguments.optimizer,
        optimizer_params=arguments.optimizer_params,
    )


def _training(
    module: BaseModule,
    given: dict[str, Any],
    arguments: FitArguments,
    callbacks: FitCallbacks,
    batches: BatchIterator,
    checkpoints: Checkpoints,
) -> Training:
    """The loop, not begun yet."""
    validation_metric = arguments.validation_metric
    if validation_metric is None:
        validation_metric = arguments.eval_metric
    validated = metrics.as_metric(validation_metric)
    metric = metrics.as_metric(arguments.eval_metric)

    async def validate(epoch: int) -> None:
        await module.score(
            arguments.eval_data,
            validated,
            batch_end_callback=(
                *callbacks.eval_batch_end,
                training.display.validation_batch,
            ),
            score_end_callback=callbacks.eval_end,
            epoch=epoch,
            count_pad=arguments.count_pad,
            in_flight=arguments.in_flight,
        )

    training = Training(
        module=module,
        batches=batches,
        metric=metric,
        batch_end=callbacks.batch_end,
        epoch_end=callbacks.epoch_end,
        validate=None if arguments.eval_data is None else validate,
        validation_metric=validated,
        in_flight=arguments.in_flight,
        accumulate=arguments.accumulate,
        count_pad=arguments.count_pad,
        sparse_row_id_fn=arguments.sparse_row_id_fn,
        monitor=arguments.monitor,
        checkpoints=checkpoints,
        known=given | {"eval_metric": metric, "validation_metric": validation_metric},
    )
    training.known["history"] = training.history
    return training


def _uniform() -> Any:
    from asyncmod.initializer import Uniform

    return Uniform(0.01)
