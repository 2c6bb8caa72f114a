"""AttrScope: attributes for everything that is made inside a `with` block."""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar
from types import TracebackType
from typing import Self

from asyncmod.errors import ArgumentError


class AttrScope:
    """Adds attributes to the variables and operators made inside it.

    Scopes nest: the inner one adds to the outer one and wins where both speak. They
    live in a context variable, so that tasks do not disturb each other.

    Args:
        **attributes: Strings. Keys are of the form `__x__`, or one of MXNet's own
            hidden attributes, such as `ctx_group` or `lr_mult`.

    Raises:
        ArgumentError: if a value is not a string.
    """

    def __init__(self, **attributes: str) -> None:
        for key, value in attributes.items():
            if not isinstance(value, str):
                raise ArgumentError(
                    f"Attributes need to be string: `{key}` is {value!r}; "
                    f"write {key}={str(value)!r}"
                )
        self._attributes = attributes

    def get(self, attributes: Mapping[str, str] | None) -> dict[str, str]:
        """This scope's own attributes, overridden by the given ones."""
        return {**self._attributes, **(attributes or {})}

    def __enter__(self) -> Self:
        scopes = _scopes.get()
        _scopes.set((*scopes, AttrScope(**self.get_inside(scopes[-1]))))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        _scopes.set(_scopes.get()[:-1])

    def get_inside(self, outer: AttrScope) -> dict[str, str]:
        """What holds when this scope is opened inside `outer`."""
        return outer.get(self._attributes)


_scopes: ContextVar[tuple[AttrScope, ...]] = ContextVar(
    "attribute_scopes", default=(AttrScope(),)
)


def current() -> AttrScope:
    """All open scopes of this task, as one."""
    return _scopes.get()[-1]
