"""Memory that several processes map: a file without a name.

The file goes from process to process as a descriptor, so there is nothing to unlink:
the kernel frees it with its last holder, however that one dies. It is reserved when it
is made, since touching a page that the system cannot give may be a bus error. What will
mostly stay untouched can be left out where that is what it is to memory of one's own:
pages are given when they are touched, as long as the machine has some.
"""

from __future__ import annotations

import errno
import mmap
import os
import tempfile
from collections.abc import Sequence
from contextlib import suppress

import numpy as np
from numpy.typing import NDArray

from runtime.transport.descriptors import needs_descriptors
from runtime.transport.machine import available_memory, commits_strictly

_DIRECTORY = "/dev/shm"  # held in memory, unlike the usual place of temporary files
_MEBIBYTE = 1 << 20


class SharedMemory:
    """A block of zeros, or the same block as another process sees it.

    Attributes:
        fd: Its file, to be sent to other processes; -1 when closed.
        nbytes: Its size.
        data: Its bytes.
    """

    def __init__(self, nbytes: int, spare: Sequence[tuple[int, int]] = ()) -> None:
        """Reserve new memory.

        Args:
            nbytes: Its size.
            spare: Begin and end of parts, in order, that need not be reserved.

        Raises:
            MemoryError: there is not so much; the message has both numbers.
            DeviceError: this process may open no more files.
        """
        nbytes = max(nbytes, 1)  # nothing cannot be mapped
        with needs_descriptors("shared memory"):
            self.fd = _open_anonymous()
        try:
            _reserve(self.fd, nbytes, spare if _gives_pages() else ())
            self._map(nbytes)
        except BaseException:
            self.close()
            raise

    @classmethod
    def attach(cls, fd: int, nbytes: int) -> SharedMemory:
        """Map memory that another process made; takes `fd`, and closes it.

        Raises:
            ValueError: the file is smaller than `nbytes`.
        """
        memory = cls.__new__(cls)
        memory.fd = fd
        try:
            size = os.fstat(fd).st_size
            if size < nbytes:
                raise ValueError(f"shared memory of {size} bytes, {nbytes} are needed")
            memory._map(nbytes)
        finally:
            os.close(fd)
            memory.fd = -1
        return memory

    def close(self) -> None:
        """Give up the file; the bytes stay for who still has views of them."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
        self.data: NDArray[np.uint8] = np.empty(0, np.uint8)

    def _map(self, nbytes: int) -> None:
        try:
            with needs_descriptors("shared memory"):
                block = mmap.mmap(self.fd, nbytes)
        except OSError as error:
            if error.errno != errno.ENOMEM:
                raise
            raise MemoryError(f"{nbytes} bytes of memory cannot be mapped") from error
        with suppress(AttributeError, OSError):  # an advice that few systems take
            block.madvise(mmap.MADV_HUGEPAGE)
        self.nbytes = nbytes
        self.data = np.frombuffer(block, np.uint8)


def _open_anonymous() -> int:
    if hasattr(os, "memfd_create"):
        return os.memfd_create("asyncmod", os.MFD_CLOEXEC)
    return _open_unlinked()


def _open_unlinked() -> int:
    """An ordinary file whose name is gone at once."""
    directory = _DIRECTORY if os.path.isdir(_DIRECTORY) else None
    fd, path = tempfile.mkstemp(prefix="asyncmod-", dir=directory)
    os.unlink(path)
    return fd


def _gives_pages() -> bool:
    """Whether a page that was not reserved is there when it is touched.

    Not in a file system, which may be full, nor where the kernel counts every page that
    was promised.
    """
    return hasattr(os, "memfd_create") and not commits_strictly()


def _reserve(fd: int, nbytes: int, spare: Sequence[tuple[int, int]]) -> None:
    """Make the file `nbytes` long, with all its pages there but those to spare."""
    ends = [0, *(end for part in spare for end in part), nbytes]
    parts = list(zip(ends[::2], ends[1::2], strict=True))
    # Nothing bounds a file that lies in no file system but the kernel's last resort,
    # which is to kill somebody.
    wanted, available = sum(end - begin for begin, end in parts), available_memory()
    if wanted > available:
        raise MemoryError(_refusal(wanted, available))
    try:
        os.ftruncate(fd, nbytes)
        for begin, end in parts:
            if begin < end:
                _allocate(fd, begin, end)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.ENOMEM, errno.EFBIG):
            raise
        status = os.fstatvfs(fd)
        free = status.f_bavail * status.f_frsize
        raise MemoryError(_refusal(wanted, free)) from error


def _allocate(fd: int, begin: int, end: int) -> None:
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(fd, begin, end - begin)
        return
    zeros = bytes(_MEBIBYTE)
    for offset in range(begin, end, _MEBIBYTE):
        os.pwrite(fd, zeros[: end - offset], offset)


def _refusal(nbytes: int, available: int) -> str:
    return (
        f"{nbytes} bytes of shared memory are wanted, {available} are available: use "
        "smaller batches or fewer process workers, or give the machine (docker: "
        "--memory, --shm-size) more"
    )
