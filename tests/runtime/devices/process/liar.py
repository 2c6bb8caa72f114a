"""A worker that breaks the protocol; started in place of the real one.

It gets ready as it should, and answers the first request in the way that stands in the
environment.
"""

from __future__ import annotations

import os
import signal
import socket
import struct
import sys
import time

from runtime.transport.frames import REQUESTS, pack, receive

VARIABLE = "ASYNCMOD_TEST_LIE"


def answer(lie: str, generation: int, number: int) -> bytes:
    """What it sends."""
    honest = {"op": "done", "number": number, "generation": generation}
    match lie:
        case "too long":
            return struct.pack("<I", 1 << 31)
        case "nonsense":
            return struct.pack("<I", 3) + b"\xc1\xc1\xc1"
        case "unknown kind":
            return pack({**honest, "op": "launch"})
        case "unknown field":
            return pack({**honest, "pickle": "cos"})
        case "wrong number":
            return pack({**honest, "number": number + 1})
        case "stale generation":
            return pack({**honest, "generation": generation - 1})
        case "no such launch":
            words = {"type": "ValueError", "message": "", "notes": [], "trace": ""}
            return pack({**honest, "op": "failed", "at": 1, **words})
        case "answers to nothing":
            return pack({**honest, "number": 0}) + pack(honest)
    raise ValueError(lie)


def main() -> None:
    generation, connection = int(sys.argv[2]), socket.socket(fileno=int(sys.argv[3]))
    lie = os.environ[VARIABLE]
    if lie == "leaves at once":
        sys.exit("I will not work")
    connection.sendall(pack({"op": "done", "number": 0, "generation": generation}))
    frame, _ = receive(connection, REQUESTS)
    if lie == "closes and stays":
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        connection.close()
    else:
        connection.sendall(answer(lie, generation, frame["number"]))
    while True:
        time.sleep(60)


if __name__ == "__main__":
    main()
