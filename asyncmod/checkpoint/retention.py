"""The checkpoint files of a prefix: which there are, which is valid, which may go."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from os import PathLike, fspath

from asyncmod.checkpoint.mapped_file import CheckpointFile, Verify, open_checkpoint
from asyncmod.checkpoint.settings import Checkpoint
from asyncmod.errors import CheckpointError
from asyncmod.log import DEFAULT, Logger


@dataclass(frozen=True, order=True)
class SavedFile:
    """A checkpoint file.

    Attributes:
        number: The number in its name.
        path: Its path.
    """

    number: int
    path: str


def saved_files(prefix: str | PathLike[str]) -> list[SavedFile]:
    """All files `PREFIX-NNNN.asyncmod`, valid or not, by number.

    Raises:
        CheckpointError: the folder cannot be read.
    """
    folder, name = os.path.split(fspath(prefix))
    pattern = re.compile(re.escape(name) + r"-(\d{4,18})\.asyncmod", re.ASCII)
    try:
        entries = os.listdir(folder or ".")
    except OSError as error:
        raise CheckpointError(f"cannot look for {fspath(prefix)}: {error}") from error
    found = [(match, entry) for entry in entries if (match := pattern.fullmatch(entry))]
    return sorted(
        SavedFile(int(match[1]), os.path.join(folder, entry)) for match, entry in found
    )


def latest(
    prefix: str | PathLike[str], verify: Verify = "full", logger: Logger = DEFAULT
) -> CheckpointFile | None:
    """The valid checkpoint with the highest number; None if there is none.

    Invalid ones are stepped over, with a warning that names each and says why.

    Args:
        prefix: Path and beginning of the files' names.
        verify: See `open_checkpoint`.
        logger: Where the warnings go.

    Raises:
        CheckpointError: the folder cannot be read.
    """
    for saved in reversed(saved_files(prefix)):
        try:
            return open_checkpoint(saved.path, verify)
        except CheckpointError as error:
            logger.warning("stepped over a checkpoint: %s", error)
    return None


def surplus(
    files: Sequence[SavedFile], settings: Checkpoint, kept: Collection[int]
) -> list[SavedFile]:
    """The files that the settings do not keep.

    Args:
        files: By number.
        settings: What is kept.
        kept: Numbers that are kept besides: the best one, and what was just written.
    """
    if settings.keep_last is None:
        return []
    older = files[: -settings.keep_last]
    gone = []
    period = -1
    for file in older:
        if settings.keep_every is not None:
            before, period = period, file.number // settings.keep_every
            if period > max(before, 0):
                continue
        if file.number not in kept:
            gone.append(file)
    return gone


def remove(files: Sequence[SavedFile]) -> None:
    """Remove files; one that cannot be removed stays."""
    for file in files:
        with contextlib.suppress(OSError):
            os.unlink(file.path)
