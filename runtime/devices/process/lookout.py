"""How a worker waits for its next request: awake for a moment if that is worthwhile.

To be woken up takes longer than to look, above all on a virtual machine. But a worker
whose requests come late would look in vain, each time, on a core that others may want.
"""

from __future__ import annotations

import os
import select
import socket
import time

SECONDS = 5e-4  # longer than from one step's end to the next one's begin

_give_way = getattr(os, "sched_yield", lambda: None)  # not everywhere


class Lookout:
    """See the module.

    Attributes:
        is_worthwhile: Whether the last request that was looked for came in time.
    """

    def __init__(self, connection: socket.socket) -> None:
        self.is_worthwhile = False
        self._arrived = select.poll()
        self._arrived.register(connection, select.POLLIN)

    def wait(self) -> None:
        """Return when a request is there, or the other side has closed."""
        end = time.monotonic() + SECONDS
        if self.is_worthwhile:
            while not self._arrived.poll(0) and time.monotonic() < end:
                _give_way()
        self._arrived.poll()
        self.is_worthwhile = time.monotonic() < end
