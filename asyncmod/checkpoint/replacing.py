"""A file that appears whole or not at all, whatever ends the process or fills the disk.

It is written under another name in the same folder, brought to the disk, and only then
renamed. A process that is killed leaves the other name behind; the lock on it is gone
with the process, by which `remove_abandoned` knows.
"""

from __future__ import annotations

import contextlib
import fcntl
import glob
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from asyncmod.checkpoint.file_system import FileSystem
from asyncmod.errors import CheckpointError

PARTIAL = ".partial"


@dataclass(frozen=True)
class NewFile:
    """A file that is being written.

    Attributes:
        descriptor: Its descriptor.
        system: Where it is.
    """

    descriptor: int
    system: FileSystem

    def write(self, data: memoryview, offset: int) -> None:
        """Write all bytes at an offset, however many the system takes at a time."""
        while data:
            written = self.system.write(self.descriptor, data, offset)
            data, offset = data[written:], offset + written


@contextmanager
def replacing(path: str, size: int, system: FileSystem) -> Iterator[NewFile]:
    """Write `path` anew, in the body of the `with`.

    If the body or the system fails, the new file is removed and what was at `path`
    stays.

    Args:
        path: The file.
        size: Its length in bytes; reserved before anything is written.
        system: The file system.

    Raises:
        CheckpointError: the system refused something; `errno` says why.
    """
    partial = f"{path}.{secrets.token_hex(4)}{PARTIAL}"
    try:
        descriptor = system.create(partial)
        try:
            try:
                system.allocate(descriptor, size)
                yield NewFile(descriptor, system)
                system.sync(descriptor)
            finally:
                system.close(descriptor)
            system.rename(partial, path)
        except BaseException:
            with contextlib.suppress(OSError):
                system.unlink(partial)
            raise
        system.sync_folder(os.path.dirname(path) or ".")
    except CheckpointError:
        raise
    except OSError as error:
        raise failed(f"cannot save {path}", error) from error


def failed(what: str, error: OSError) -> CheckpointError:
    """An error of the system's as one of ours, with the same `errno`."""
    result = CheckpointError(f"{what}: {error.strerror or error}")
    result.errno = error.errno
    return result


def remove_abandoned(prefix: str) -> list[str]:
    """Remove what killed processes left of files that begin with `prefix`.

    Returns:
        The names that were removed.
    """
    removed = []
    for path in sorted(glob.glob(f"{glob.escape(prefix)}*{PARTIAL}")):
        with contextlib.suppress(OSError):  # its owner is at work, or has finished
            descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                os.unlink(path)
            finally:
                os.close(descriptor)
            removed.append(path)
    return removed
