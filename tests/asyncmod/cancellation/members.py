"""What can be awaited in asyncmod, read from its public names."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import asyncmod as mx

ABSTRACT = {"BaseModule", "PythonModule", "DataIter"}
"""Bases of classes that are there as well, and that have all of their members."""
SPECIAL = {"__aenter__", "__aexit__", "__anext__", "__call__"}


def awaitable_members() -> set[str]:
    """Such as "Module.step", and "bind" for a function; async iterators included."""
    found = set()
    for value in public_values(mx, set()):
        if inspect.isclass(value):
            if value.__name__ not in ABSTRACT and not is_protocol(value):
                found |= {f"{value.__name__}.{name}" for name in methods(value)}
        elif is_awaitable(value):
            found.add(value.__name__)
    return found


def public_values(module: ModuleType, seen: set[str]) -> Iterator[Any]:
    """The classes and functions that a module and the public ones in it show."""
    if module.__name__ in seen:
        return
    seen.add(module.__name__)
    listed = getattr(module, "__all__", None)
    for name in list(listed or vars(module)):
        value = getattr(module, name)
        # A module without a list shows what it defines itself.
        if listed is None and getattr(value, "__module__", "") != module.__name__:
            continue
        if inspect.ismodule(value):
            if value.__name__.startswith("asyncmod"):
                yield from public_values(value, seen)
        elif not name.startswith("_") and callable(value):
            yield value


def methods(cls: type) -> Iterator[str]:
    for name in dir(cls):
        if name in SPECIAL or not name.startswith("_"):
            attribute = inspect.getattr_static(cls, name)
            if is_awaitable(getattr(attribute, "__func__", attribute)):
                yield name


def is_protocol(cls: type) -> bool:
    return bool(getattr(cls, "_is_protocol", False))


def is_awaitable(value: Any) -> bool:
    if not callable(value) or inspect.isclass(value):
        return False
    function = inspect.unwrap(value)
    return inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function)
