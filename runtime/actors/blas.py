"""BLAS threads: one per call while any runtime is open.

The number is a property of the process, and a threaded BLAS collapses when a core is
busy; devices bring their own threads.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_lock = threading.Lock()
_holders = 0
_limit: Any = None


@contextmanager
def single_threaded_blas() -> Iterator[None]:
    """Limit BLAS to one thread; the last holder restores what was before the first."""
    global _holders, _limit
    with _lock:
        _holders += 1
        if _holders == 1:
            _limit = _limit_blas()
    try:
        yield
    finally:
        with _lock:
            _holders -= 1
            if _holders == 0 and _limit is not None:
                _limit.restore_original_limits()
                _limit = None


def _limit_blas() -> Any:
    # Looks through the process's libraries, so it is loaded when it is needed.
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    return threadpool_limits(limits=1, user_api="blas")
