"""What runs in a worker process; started by `runtime.devices.process.process`.

It dies with its parent from its first line on, whatever it is doing then; what takes
time to import comes after that.

Next: `runtime.devices.process.serve`.
"""

from __future__ import annotations

import ctypes
import faulthandler
import os
import select
import signal
import sys
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from runtime.transport.shared_memory import SharedMemory

HEARTBEAT_SECONDS = 0.05
_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Serve one device until the parent closes the connection."""
    parent, generation, connection, control = map(int, sys.argv[1:5])
    kind, index = sys.argv[5], int(sys.argv[6])
    die_with(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # ctrl-C is the parent's affair
    faulthandler.enable()
    faulthandler.register(signal.SIGUSR1, all_threads=True)
    import socket

    from runtime.transport.shared_memory import SharedMemory

    page = SharedMemory.attach(control, os.fstat(control).st_size)
    threading.Thread(target=live, args=[connection, page], daemon=True).start()
    from runtime.devices.process.serve import Server

    server = Server(socket.socket(fileno=connection), generation, kind, index)
    page.data[0] = 1  # from here on its parent misses heartbeats that do not come
    server.run()


def die_with(parent: int) -> None:
    """Let the kernel kill this process when the thread that started it ends.

    Linux only; elsewhere the end of the connection has to do. If the parent has gone
    already, this process ends here.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


def live(connection: int, page: SharedMemory) -> None:
    """Count heartbeats; end the process when the connection is closed."""
    import numpy as np

    heartbeat = page.data[:8].view(np.int64)
    poll = select.poll()
    poll.register(connection, 0)  # only that it is hung up
    while not poll.poll(1000 * HEARTBEAT_SECONDS):
        heartbeat[0] += 1
    os._exit(0)


if __name__ == "__main__":
    main()
