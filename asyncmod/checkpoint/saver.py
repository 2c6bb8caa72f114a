"""Saver: checkpoints written in a thread, one at a time, while training goes on.

    if await saver.ready():          # waits for the write before, or skips
        ... copy the state into saver.staging ...
        saver.begin(header)          # the thread writes, and training goes on

What went wrong in the thread is raised by the next `ready`, `check` or `finish`.

Next: `asyncmod.checkpoint.writer`.
"""

from __future__ import annotations

import threading
from collections.abc import Collection
from types import TracebackType
from typing import Self

import trio

from asyncmod.checkpoint.file_system import OPERATING_SYSTEM, FileSystem
from asyncmod.checkpoint.header import Header
from asyncmod.checkpoint.replacing import remove_abandoned
from asyncmod.checkpoint.retention import remove, saved_files, surplus
from asyncmod.checkpoint.settings import Checkpoint
from asyncmod.checkpoint.staging import Staging
from asyncmod.checkpoint.writer import write_checkpoint
from asyncmod.errors import CheckpointError
from asyncmod.io.thread_call import ThreadCall
from asyncmod.log import Logger


class Abandoned(BaseException):
    """Raised in the thread when nobody wants the file any more."""


class Saver:
    """Writes the checkpoints of one training; enter it with `async with`.

    Leaving it waits for the write under way, and raises what went wrong in it (after
    an error of the block: logs it). If the block is cancelled, the write is abandoned
    between two blocks of 4 MiB: then the file does not appear, nothing is left of it,
    and no thread outlives the scope. That may take as long as one block, or as bringing
    a file to the disk.

    Args:
        settings: Where and how to save.
        logger: Where it is said what was saved.
        system: The file system.

    Attributes:
        staging: Where to copy the state, between `ready` and `begin`.
    """

    def __init__(
        self,
        settings: Checkpoint,
        logger: Logger,
        system: FileSystem = OPERATING_SYSTEM,
    ) -> None:
        self.staging = Staging()
        self._settings = settings
        self._logger = logger
        self._system = system
        self._writing: ThreadCall[None] | None = None
        self._abandoned = threading.Event()

    async def ready(self) -> bool:
        """Whether the next checkpoint may be prepared now; the staging is free then.

        Raises:
            CheckpointError: the one before failed.
        """
        if self._settings.when_busy == "skip" and self._is_writing:
            self._logger.warning(
                "a checkpoint was skipped: the one before is still being written"
            )
            return False
        await self.finish()
        self.staging.begin()
        return True

    def begin(self, header: Header, kept: Collection[int] = ()) -> None:
        """Write what is in the staging, in a thread, as the file of `header.step`.

        When the file is on the disk, those that the settings do not keep are removed.

        Args:
            header: What to say of it.
            kept: Numbers of files to keep besides.
        """
        number = header.step
        arrays = self.staging.arrays

        def write() -> None:
            path = self._settings.path(number)
            remove_abandoned(str(self._settings.prefix))
            try:
                write_checkpoint(
                    path,
                    header,
                    arrays,
                    between_blocks=self._stop_if_abandoned,
                    system=self._system,
                )
            except Abandoned:
                return
            self._logger.info('Saved checkpoint to "%s"', path)
            files = saved_files(self._settings.prefix)
            remove(surplus(files, self._settings, {number, *kept}))

        self._writing = ThreadCall(write, "asyncmod checkpoint")

    def check(self) -> None:
        """Raise what went wrong in a write that has ended; else do nothing.

        Raises:
            CheckpointError: unless the settings say that it is only logged.
        """
        if self._writing is None or self._is_writing:
            return
        ended, self._writing = self._writing, None
        try:
            ended.take()
        except CheckpointError as error:
            if self._settings.on_error == "raise":
                raise
            self._logger.warning("training goes on without a checkpoint: %s", error)

    async def finish(self) -> None:
        """Wait for the write under way; see `check` for what it raises.

        Cancelled, the write goes on.
        """
        if self._writing is not None:
            await self._writing.finished()
        self.check()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            if error is None:
                await self.finish()
            elif isinstance(error, Exception) and self._writing is not None:
                # What is being written is whole, and may be the last for a while.
                await self._writing.finished()
        finally:
            await self._abandon()

    async def _abandon(self) -> None:
        """End the write under way, if there is one, without a file."""
        if self._writing is None:
            return
        self._abandoned.set()
        with trio.CancelScope(shield=True):
            await self._writing.finished()
        try:
            self._writing.take()
        except CheckpointError as error:
            self._logger.warning("the last checkpoint failed, too: %s", error)
        self._writing = None

    @property
    def _is_writing(self) -> bool:
        return self._writing is not None and not self._writing.is_done

    def _stop_if_abandoned(self) -> None:
        if self._abandoned.is_set():
            raise Abandoned
