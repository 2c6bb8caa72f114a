"""Device threads and the scope that owns them; knows nothing of graphs.

What needs Trio is loaded when it is first used: worker processes do without.

Next: `runtime.actors.runtime`, then `command` for what the threads are told.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from runtime.actors.supervisor import WorkerPolicy

if TYPE_CHECKING:
    from runtime.actors.runtime import Runtime, current_runtime, open_runtime

__all__ = ["Runtime", "WorkerPolicy", "current_runtime", "open_runtime"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'runtime.actors' has no attribute {name!r}")
    return getattr(import_module("runtime.actors.runtime"), name)
