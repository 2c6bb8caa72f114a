"""What is told to a process that was forked: threads and workers stay its parent's."""

from __future__ import annotations

import os
import weakref
from typing import Protocol


class Forkable(Protocol):
    """Something that works in the process that made it, and not in a copy of it."""

    def forked(self) -> None:
        """This is a copy; called once, in the child."""


_told: weakref.WeakSet[Forkable] = weakref.WeakSet()


def tell_of_forks(owner: Forkable) -> None:
    """Call `owner.forked()` in every child that is forked from now on."""
    _told.add(owner)


def _tell() -> None:
    for owner in tuple(_told):
        owner.forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_tell)
