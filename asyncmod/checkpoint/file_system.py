"""The calls that writing a checkpoint makes to the operating system.

They are gathered here so that a test can end the process, or fail, at any of them.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from typing import Protocol


class FileSystem(Protocol):
    """See `OperatingSystem`; every method may raise OSError."""

    def create(self, path: str) -> int: ...

    def allocate(self, descriptor: int, size: int) -> None: ...

    def write(self, descriptor: int, data: memoryview, offset: int) -> int: ...

    def sync(self, descriptor: int) -> None: ...

    def close(self, descriptor: int) -> None: ...

    def rename(self, source: str, target: str) -> None: ...

    def unlink(self, path: str) -> None: ...

    def sync_folder(self, path: str) -> None: ...


class OperatingSystem:
    """The real one."""

    def create(self, path: str) -> int:
        """Create a file that is not there yet, locked for as long as it is open."""
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        descriptor = os.open(path, flags, 0o666)
        # Some network file systems have no locks; then nobody tidies up.
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return descriptor

    def allocate(self, descriptor: int, size: int) -> None:
        """Reserve the bytes of a file, so that a full disk shows before any write."""
        try:
            os.posix_fallocate(descriptor, 0, size)
        except AttributeError:  # not on macOS
            os.ftruncate(descriptor, size)
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL):
                raise
            os.ftruncate(descriptor, size)

    def write(self, descriptor: int, data: memoryview, offset: int) -> int:
        """Write some of the bytes, and return how many."""
        return os.pwrite(descriptor, data, offset)

    def sync(self, descriptor: int) -> None:
        """Return when the file's content is on the disk."""
        os.fsync(descriptor)

    def close(self, descriptor: int) -> None:
        """Close a file."""
        os.close(descriptor)

    def rename(self, source: str, target: str) -> None:
        """Give a file a name, at once and in place of what had it."""
        os.replace(source, target)

    def unlink(self, path: str) -> None:
        """Remove a name."""
        os.unlink(path)

    def sync_folder(self, path: str) -> None:
        """Return when the names in a folder are on the disk."""
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


OPERATING_SYSTEM = OperatingSystem()
