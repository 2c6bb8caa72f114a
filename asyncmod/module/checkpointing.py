"""What `fit` saves, when it does, and how it goes on from there.

A checkpoint is taken between two steps, when nothing is in flight: so many batches have
been applied, counted, and their callbacks called, and the iterator stands before the
next one. What a prefetching iterator has read ahead does not count, and is read again.

Next: `asyncmod.module.fit_state` for the state, `asyncmod.checkpoint.saver` for the
file.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from os import PathLike, fspath
from types import TracebackType
from typing import Any, NoReturn, Self

import trio

from asyncmod.checkpoint import Checkpoint, CheckpointFile, Header, open_checkpoint
from asyncmod.checkpoint.header import InvalidHeaderError, encode
from asyncmod.checkpoint.retention import latest, saved_files
from asyncmod.checkpoint.saver import Saver
from asyncmod.errors import ArgumentError, CheckpointError
from asyncmod.log import Logger
from asyncmod.module.checkpoints import (
    NoCheckpoints,
    Position,
    Spent,
    Subjects,
    Values,
)
from asyncmod.module.fit_state import FitState
from asyncmod.stop_signals import StopSignals

SCHEMA = "module"


class Saving:
    """Saves by the settings, resumes, and ends training in good order on a signal.

    Args:
        settings: Where, when and how.
        resume: The file to go on from, "auto" for the latest, or None to begin anew.
        logger: Where it is said what was done.
    """

    def __init__(
        self, settings: Checkpoint, resume: str | None, logger: Logger
    ) -> None:
        self._settings = settings
        self._resume = resume
        self._logger = logger
        self._saver = Saver(settings, logger)
        self._signals = StopSignals()
        self._state: FitState
        self._run = secrets.token_hex(8)
        self._saved: Position | None = None
        self._saved_at = time.monotonic()
        self._due = False  # asked for, but no update has been complete since
        self._best: tuple[int, float] | None = None
        self._metric_state: Any = None

    async def __aenter__(self) -> Self:
        await self._saver.__aenter__()
        self._signals.install()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            await self._saver.__aexit__(kind, error, traceback)
        finally:
            self._signals.remove()
        if error is None and self._signals.received is not None:
            self._signals.exit()  # it came when all was done but the last write

    async def begin(self, subjects: Subjects, position: Position) -> Position:
        """Put the state back, if there is one to resume from; where training begins.

        The state is then gathered once: what cannot be saved shows now, and memory for
        it is there when training waits for the copy.

        Raises:
            ArgumentError: files of this prefix are there, and nothing said to resume.
            CheckpointError: the file is damaged, or of another module; or the state of
                something cannot be saved.
            UnsupportedError: the module or its optimizer does not say what it keeps.
        """
        self._state = FitState(subjects)
        file = await self._find()
        if file is not None:
            try:
                position = await self._put_back(file)
            finally:
                file.close()
        await self._saver.ready()
        try:
            encode(await self._gather(position))
        except InvalidHeaderError as error:
            raise CheckpointError(str(error)) from error
        return position

    async def _put_back(self, file: CheckpointFile) -> Position:
        header = file.header
        state = header.state
        if header.schema != SCHEMA:
            raise CheckpointError(
                f"{file.path} holds {header.schema!r}, not the state of a training: "
                "choose another prefix for one of them"
            )
        try:
            await self._state.put_back(file)
            # Between two epochs it is that of the last one, which is over.
            self._metric_state = state["metric"] if header.batch else None
            self._best = None if state["best"] is None else tuple(state["best"])
            stopped_by = state["stopped_by"]
            spent = Spent(**state.get("spent", {}))
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(
                f"{file.path} does not fit this training: {error}"
            ) from error
        self._run = header.run
        position = Position(header.epoch, header.batch, header.step, stopped_by, spent)
        self._saved = position
        self._logger.info(
            "resumed from %s: epoch %d, batch %d, step %d",
            file.path,
            position.epoch,
            position.batch,
            position.step,
        )
        return position

    def is_due(self, step: int) -> bool:
        """Whether to save when this step is complete.

        Raises:
            CheckpointError: the save before has failed.
        """
        self._saver.check()
        every = self._settings.every_batches
        self._due = self._due or self._is_time()
        self._due = self._due or (every is not None and step % every == 0)
        return self._due

    async def save(self, position: Position) -> None:
        """Copy the state and begin to write it; training may go on meanwhile.

        Raises:
            CheckpointError: the save before has failed, or the state cannot be saved.
            KeyboardInterrupt, SystemExit: a signal has ended the training.
        """
        self._due = False
        if self._signals.received is not None:
            await self._stop(position)
        if await self._saver.ready():
            await self._begin_to_write(position)

    async def end_epoch(self, position: Position, values: Values) -> None:
        """Save after an epoch if it is time, or if it is the best so far.

        Raises:
            CheckpointError, KeyboardInterrupt, SystemExit: see `save`.
        """
        self._saver.check()
        is_best = self._is_best(position, values)
        every = self._settings.every_epochs
        is_due = every is not None and position.epoch % every == 0
        if is_due or is_best or self._due or self._is_time():
            await self.save(position)

    async def end(self, position: Position) -> None:
        """Save at the end of training, unless it has just been done.

        Raises:
            CheckpointError, KeyboardInterrupt, SystemExit: see `save`.
        """
        if self._saved != position or self._signals.received is not None:
            await self._saver.finish()
            await self.save(position)

    @contextmanager
    def interruptible(self) -> Iterator[Callable[[], bool]]:
        """Cancels its body when a signal comes; gives what says whether it did."""
        with self._signals.cancelling() as scope:
            yield lambda: scope.cancelled_caught

    def metric_state(self) -> Any:
        """The metric's state in the first epoch, once; None if there is none."""
        state, self._metric_state = self._metric_state, None
        return state

    async def _find(self) -> CheckpointFile | None:
        if self._resume is None:
            there = saved_files(self._settings.prefix)
            if there:
                raise ArgumentError(
                    f"there are checkpoints already, such as {there[-1].path}: go on "
                    'from them by fit(resume="auto"), or choose another prefix, or '
                    "remove them"
                )
            return None
        if self._resume != "auto":
            return await trio.to_thread.run_sync(open_checkpoint, self._resume)
        prefix = self._settings.prefix
        return await trio.to_thread.run_sync(latest, prefix, "full", self._logger)

    async def _begin_to_write(self, position: Position) -> None:
        header = await self._gather(position)
        self._saver.begin(header, () if self._best is None else (self._best[0],))
        self._saved, self._saved_at = position, time.monotonic()

    async def _gather(self, position: Position) -> Header:
        """Copy the arrays into the staging; returns the rest."""
        state = {
            **await self._state.gather(self._saver.staging),
            "best": self._best,
            "stopped_by": position.stopped_by,
            "spent": asdict(position.spent),
        }
        return Header(
            schema=SCHEMA,
            run=self._run,
            created=time.time(),
            epoch=position.epoch,
            batch=position.batch,
            step=position.step,
            state=state,
        )

    async def _stop(self, position: Position) -> NoReturn:
        """Save, if it can be, and end the program as the signal says."""
        try:
            if self._saved != position:
                await self._saver.finish()
                await self._saver.ready()
                await self._begin_to_write(position)
            await self._saver.finish()
        except CheckpointError as error:
            self._logger.warning("stopping without a checkpoint: %s", error)
        self._signals.exit()

    def _is_time(self) -> bool:
        """Whether the clock or a signal asks for a checkpoint."""
        if self._signals.received is not None:
            return True
        every = self._settings.every_seconds
        return every is not None and time.monotonic() - self._saved_at >= every

    def _is_best(self, position: Position, values: Values) -> bool:
        name = self._settings.keep_best
        if name is None:
            return False
        from asyncmod.callback.best_value import BestValue

        best = BestValue(name, self._settings.mode, 0.0)
        named = dict(values)
        if name not in named:
            raise ArgumentError(
                f"`keep_best` is {name!r}, but the metric has: {', '.join(named)}"
            )
        best.value = None if self._best is None else self._best[1]
        if not best.is_better(name, named[name]):
            return False
        self._best = (position.step, float(named[name]))
        return True


def as_checkpoints(
    checkpoint: Checkpoint | str | PathLike[str] | None,
    checkpoint_every: int | None,
    resume: str | PathLike[str] | None,
    logger: Logger,
) -> Saving | NoCheckpoints:
    """What `fit`'s arguments say.

    Raises:
        ArgumentError: `checkpoint_every` or `resume` without `checkpoint`.
    """
    if checkpoint is None:
        for name, value in (("checkpoint_every", checkpoint_every), ("resume", resume)):
            if value is not None:
                raise ArgumentError(
                    f"`{name}` needs `checkpoint`: give the prefix of the files, "
                    'fit(checkpoint="folder/name", ...)'
                )
        return NoCheckpoints()
    if not isinstance(checkpoint, Checkpoint):
        checkpoint = Checkpoint(fspath(checkpoint), every_batches=checkpoint_every)
    elif checkpoint_every is not None:
        checkpoint = replace(checkpoint, every_batches=checkpoint_every)
    return Saving(checkpoint, None if resume is None else fspath(resume), logger)
