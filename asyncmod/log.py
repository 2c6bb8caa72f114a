"""The logger that asyncmod writes to unless it is given one.

structlog is imported at the first line logged, since it takes longer to import than
all of asyncmod. The library never configures logging.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Any, Protocol

import trio


class Logger(Protocol):
    """What asyncmod asks of a logger: `logging` and structlog loggers both have it."""

    def info(self, event: str, *args: Any) -> Any: ...

    def warning(self, event: str, *args: Any) -> Any: ...


class LazyLogger:
    """`structlog.get_logger(name)`, made when the first line is logged."""

    def __init__(self, name: str = "asyncmod") -> None:
        self._name = name

    def info(self, event: str, *args: Any) -> Any:
        """Log at level info."""
        return self._logger().info(event, *args)

    def warning(self, event: str, *args: Any) -> Any:
        """Log at level warning."""
        return self._logger().warning(event, *args)

    def _logger(self) -> Any:
        import structlog

        return structlog.get_logger(self._name)


DEFAULT: Logger = LazyLogger()


async def prepare(logger: Logger) -> None:
    """Import what the first line of the default logger needs, in a thread.

    It takes five times as long as the event loop may be held up.
    """
    if isinstance(logger, LazyLogger) and "structlog" not in sys.modules:
        await trio.to_thread.run_sync(import_module, "structlog")
