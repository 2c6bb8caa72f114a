"""Automatic names: `fullyconnected0`, `_plus1`, one counter for each kind.

The scopes live in a context variable, so that tasks do not disturb each other.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextvars import ContextVar
from itertools import count
from types import TracebackType
from typing import Self


class NameManager:
    """Gives names to operators that have none; use as `with NameManager():`.

    A new manager starts all its counters at 0. Managers nest: the innermost one
    names. Subclasses may override `get`.
    """

    def __init__(self) -> None:
        self._counters: dict[str, Iterator[int]] = {}

    def get(self, name: str | None, hint: str) -> str:
        """The name itself if there is one, else `hint` with the next number.

        Args:
            name: The name that the user gave, or None.
            hint: The kind of operator, in lower case.
        """
        if name:
            return name
        return f"{hint}{next(self._counters.setdefault(hint, count()))}"

    def __enter__(self) -> Self:
        _scopes.set((*_scopes.get(), self))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        _scopes.set(_scopes.get()[:-1])


class Prefix(NameManager):
    """Puts a prefix before every operator's name, given or automatic.

    Variables are named by the user and keep their names.
    """

    def __init__(self, prefix: str) -> None:
        super().__init__()
        self._prefix = prefix

    def get(self, name: str | None, hint: str) -> str:
        return self._prefix + super().get(name, hint)


# Without any scope, the whole process shares the first manager.
_scopes: ContextVar[tuple[NameManager, ...]] = ContextVar(
    "name_managers", default=(NameManager(),)
)


def current() -> NameManager:
    """The innermost manager of this task."""
    return _scopes.get()[-1]
