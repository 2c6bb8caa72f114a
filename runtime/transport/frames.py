"""Control frames: a length, then a msgpack map of one of a few shapes.

No frame is longer than `LIMIT`, which is checked before anything of it is read; what
is larger (plans, arrays) travels in shared memory whose descriptor goes with a frame.
Whatever does not fit the closed schema is refused.
"""

from __future__ import annotations

import array
import socket
import struct
from collections.abc import Mapping, Sequence
from typing import Any

import msgpack

from runtime.errors import AsyncmodError

Frame = dict[str, Any]
Schema = Mapping[str, Mapping[str, type]]

LIMIT = 1 << 20
_ITEMS_LIMIT = 4096
_LENGTH = struct.Struct("<I")
_DESCRIPTORS = 2  # the most that go with a frame

# What the parent asks of a worker; `number` counts all requests of one worker.
REQUESTS: Schema = {
    "map": {"number": int, "memory": int, "nbytes": int},
    "unmap": {"number": int, "memory": int},
    "compile": {
        "number": int,
        "program": int,
        "plan": int,  # its size; its bytes are the descriptor that goes along
        "slots": int,
        "segments": dict,  # name: [[memory, offset, nbytes] of each slot]
        "journal": list,  # memory, offset, nbytes
    },
    "csr": {  # where an input lies; its memory is the descriptor that goes along
        "number": int,
        "program": int,
        "name": str,
        "slot": int,
        "nbytes": int,
    },
    "launch": {
        "number": int,
        "after": bool,  # not if the launches before these have failed
        "linger": bool,  # more is likely to come soon, and there is a core to look out
        # One after the other; those behind one that fails are left out. Of each:
        # program, section, slot, seed, step, row; a number that changes with parameters
        # and auxiliary states; how much of what it changes has been saved already.
        "launches": list,
    },
    "close": {"number": int, "program": int},
}
# What a worker answers: in the order of the requests, one each; 0 when it is ready.
REPLIES: Schema = {
    "done": {"number": int, "generation": int},
    "failed": {
        "number": int,
        "generation": int,
        "at": int,  # which one of the launches; 0 if it was something else
        "type": str,
        "message": str,
        "notes": list,
        "trace": str,
    },
}


class ProtocolError(AsyncmodError, RuntimeError):
    """The other side sent something that it must not send."""


def pack(frame: Frame) -> bytes:
    """A frame as bytes, with its length in front."""
    body: bytes = msgpack.packb(frame)
    if len(body) > LIMIT:
        raise ProtocolError(f"a frame of {len(body)} bytes, the limit is {LIMIT}")
    return _LENGTH.pack(len(body)) + body


def unpack(body: bytes, schema: Schema) -> Frame:
    """The frame in `body`.

    Raises:
        ProtocolError: it is not one frame of the schema.
    """
    try:
        frame = msgpack.unpackb(
            body,
            object_pairs_hook=_unique,
            max_array_len=_ITEMS_LIMIT,
            max_map_len=_ITEMS_LIMIT,
            max_str_len=LIMIT,
            max_bin_len=0,
            max_ext_len=0,
        )
    except ProtocolError:
        raise
    except Exception as error:  # msgpack has many ways to say that it is nonsense
        raise ProtocolError(f"not a frame: {type(error).__name__}: {error}") from None
    kind = frame.pop("op", None) if isinstance(frame, dict) else None
    fields = schema.get(kind) if isinstance(kind, str) else None
    if fields is None:
        raise ProtocolError(f"a frame of unknown kind: {str(frame)[:200]}")
    if frame.keys() != fields.keys():
        raise ProtocolError(f"`{kind}` has the fields {', '.join(frame)[:200]}")
    for name, wanted in fields.items():
        if type(frame[name]) is not wanted:
            raise ProtocolError(f"`{name}` of `{kind}` is no {wanted.__name__}")
    return {"op": kind, **frame}


def send(connection: socket.socket, frame: Frame, fds: Sequence[int] = ()) -> None:
    """Send a frame, and descriptors along with it."""
    data = pack(frame)
    if fds:
        sent = socket.send_fds(connection, [data], list(fds))
        data = data[sent:]
    connection.sendall(data)


def receive(connection: socket.socket, schema: Schema) -> tuple[Frame, list[int]]:
    """Wait for a whole frame, and the descriptors that came along.

    Raises:
        EOFError: the other side has closed.
        ProtocolError: what came is no frame of the schema.
    """
    head, fds = _with_descriptors(connection, _LENGTH.size)
    head += _exactly(connection, _LENGTH.size - len(head)) if head else b""
    if not head:
        raise EOFError("the other side has closed the connection")
    return unpack(_exactly(connection, _length(head)), schema), fds


def _with_descriptors(connection: socket.socket, count: int) -> tuple[bytes, list[int]]:
    # `socket.recv_fds` of Python 3.11 forgets its flags.
    fds = array.array("i")
    room = socket.CMSG_LEN(_DESCRIPTORS * fds.itemsize)
    flags = getattr(socket, "MSG_CMSG_CLOEXEC", 0)
    data, ancillary, *_ = connection.recvmsg(count, room, flags)
    for level, kind, content in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            fds.frombytes(content[: len(content) - len(content) % fds.itemsize])
    return data, list(fds)


class FrameReader:
    """Frames from a connection, as far as they have come; never waits for the rest."""

    def __init__(self, connection: socket.socket, schema: Schema) -> None:
        self._connection = connection
        self._schema = schema
        self._data = bytearray()

    def fill(self) -> bool:
        """Take what has come; False if that was nothing.

        Raises:
            EOFError: the other side has closed.
        """
        try:
            data = self._connection.recv(1 << 12, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False
        except ConnectionResetError:
            data = b""
        if not data:
            raise EOFError("the other side has closed the connection")
        self._data += data
        return True

    def take(self, frame: bytes) -> bool:
        """Whether the next frame is this one, packed; then it has been taken."""
        if not frame or not self._data.startswith(frame):
            return False
        del self._data[: len(frame)]
        return True

    def next(self) -> Frame | None:
        """The next frame that is there as a whole; None if there is none.

        Raises:
            ProtocolError: it is too long, or no frame of the schema.
        """
        if len(self._data) < _LENGTH.size:
            return None
        end = _LENGTH.size + _length(self._data[: _LENGTH.size])
        if len(self._data) < end:
            return None
        body = bytes(self._data[_LENGTH.size : end])
        del self._data[:end]
        return unpack(body, self._schema)


def _length(head: bytes | bytearray) -> int:
    length: int = _LENGTH.unpack(head)[0]
    if length > LIMIT:
        raise ProtocolError(f"a frame of {length} bytes, the limit is {LIMIT}")
    return length


def _exactly(connection: socket.socket, count: int) -> bytes:
    data = bytearray(count)
    view = memoryview(data)
    while view:
        received = connection.recv_into(view)
        if received == 0:
            raise EOFError("the other side has closed within a frame")
        view = view[received:]
    return bytes(data)


def _unique(pairs: list[tuple[Any, Any]]) -> dict[Any, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ProtocolError("a key comes twice in a frame")
    return result
