"""The want of file descriptors, told by what needs them and what to do."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from runtime.errors import DeviceError


@contextmanager
def needs_descriptors(what: str) -> Iterator[None]:
    """Say which thing could not have the file descriptors that the body asks for.

    Args:
        what: Such as "a worker process".

    Raises:
        DeviceError: there are none left, in this process or in the system.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.EMFILE, errno.ENFILE):
            raise
        raise DeviceError(
            f"{what} needs file descriptors, and there are none left "
            f"({error.strerror}): close files, or allow more (`ulimit -n`)"
        ) from error
