"""SIGTERM and ctrl-C as a request: finish what is under way, then end.

The first one is noted; the second one ends the process at once, as if nobody had
listened.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, NoReturn

import trio

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopSignals:
    """Listens between `install` and `remove`, in the main thread alone.

    A signal for which the program has a handler of its own is left to it.

    Attributes:
        received: The signal that came, or None.
    """

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self._replaced: dict[signal.Signals, Any] = {}
        self._scope: trio.CancelScope | None = None
        self._wake: Callable[[Callable[[], object]], object] | None = None

    def install(self) -> None:
        """Begin to listen; called in a Trio task."""
        if threading.current_thread() is not threading.main_thread():
            return
        self._wake = trio.lowlevel.current_trio_token().run_sync_soon
        for number in SIGNALS:
            handler = signal.getsignal(number)
            if _is_default(handler):
                self._replaced[number] = handler
                signal.signal(number, self._note)

    def remove(self) -> None:
        """Put back what listened before."""
        for number, handler in self._replaced.items():
            signal.signal(number, handler)
        self._replaced = {}

    @contextmanager
    def cancelling(self) -> Iterator[trio.CancelScope]:
        """A scope that is cancelled when a signal comes, or has come."""
        with trio.CancelScope() as scope:
            if self.received is not None:
                scope.cancel()
            self._scope = scope
            try:
                yield scope
            finally:
                self._scope = None

    def exit(self) -> NoReturn:
        """End the program as it would have ended by the signal.

        Raises:
            KeyboardInterrupt: after SIGINT.
            SystemExit: after SIGTERM, with the code 143.
        """
        if self.received is signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(128 + signal.SIGTERM)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received = signal.Signals(number)
        for replaced in self._replaced:
            signal.signal(replaced, signal.SIG_DFL)
        assert self._wake is not None
        self._wake(self._cancel)

    def _cancel(self) -> None:
        if self._scope is not None:
            self._scope.cancel()


def _is_default(handler: Any) -> bool:
    """Whether nobody but Python or Trio handles the signal."""
    if handler in (signal.SIG_DFL, signal.default_int_handler):
        return True
    return str(getattr(handler, "__module__", "")).partition(".")[0] == "trio"
