"""A file system on which the n-th call fails, or is the last of the process."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, Literal

from asyncmod.checkpoint.file_system import OperatingSystem

When = Literal["before", "after", "within"]
CALLS = (
    *("create", "allocate", "write", "sync", "close"),
    *("rename", "unlink", "sync_folder"),
)


class FaultySystem(OperatingSystem):
    """Calls `fault` at the n-th call: before it, after it, or in the middle of a write.

    Attributes:
        called: The names of the calls so far.
    """

    def __init__(self, n: int, when: When, fault: Callable[[], Any]) -> None:
        self.called: list[str] = []
        self._n = n
        self._when = when
        self._fault = fault

    def __getattribute__(self, name: str) -> Any:
        call = super().__getattribute__(name)
        if name not in CALLS:
            return call

        def counted(*arguments: Any) -> Any:
            self.called.append(name)
            faulty = len(self.called) == self._n
            if faulty and self._when == "before":
                self._fault()
            if faulty and self._when == "within" and name == "write":
                descriptor, data, offset = arguments
                os.pwrite(descriptor, data[: len(data) // 2], offset)
                self._fault()
            result = call(*arguments)
            if faulty and self._when == "after":
                self._fault()
            return result

        return counted
