"""Control frames: what goes through, and what is refused unread."""

from __future__ import annotations

import os
import socket
import struct
import tracemalloc
from collections.abc import Iterator
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.transport.frames import (
    LIMIT,
    REPLIES,
    REQUESTS,
    FrameReader,
    ProtocolError,
    pack,
    receive,
    send,
    unpack,
)

DONE = {"op": "done", "number": 3, "generation": 1}


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    here, there = socket.socketpair()
    with here, there:
        yield here, there


def body(value: Any) -> bytes:
    packed: bytes = msgpack.packb(value)
    return packed


def test_a_frame_arrives_as_it_was_sent(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    send(pair[0], DONE)
    assert receive(pair[1], REPLIES) == (DONE, [])


def test_descriptors_come_with_their_frame(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    read, write = os.pipe()
    request = {"op": "map", "number": 1, "memory": 2, "nbytes": 3}
    send(pair[0], {**request, "number": 0})
    send(pair[0], request, [write])
    os.close(write)
    assert receive(pair[1], REQUESTS)[1] == []
    frame, (received,) = receive(pair[1], REQUESTS)
    assert frame == request
    os.write(received, b"x")
    assert os.read(read, 1) == b"x"
    assert not os.get_inheritable(received)
    os.close(received)
    os.close(read)


def test_a_frame_that_comes_byte_by_byte(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    reader = FrameReader(pair[1], REPLIES)
    data = pack(DONE) * 2
    frames = []
    for i in range(len(data)):
        assert not reader.fill() or i == 0
        pair[0].send(data[i : i + 1])
        assert reader.fill()
        frame = reader.next()
        if frame is not None:
            frames.append(frame)
    assert frames == [DONE, DONE]


def test_a_frame_that_was_expected(pair: tuple[socket.socket, socket.socket]) -> None:
    reader = FrameReader(pair[1], REPLIES)
    expected = pack(DONE)
    pair[0].send(expected[:-1])
    assert reader.fill()
    assert not reader.take(expected)
    pair[0].send(expected[-1:] + pack({**DONE, "number": 4}))
    assert reader.fill()
    assert reader.take(expected)
    assert not reader.take(expected)
    assert not reader.take(b"")
    assert reader.next() == {**DONE, "number": 4}


def test_the_other_side_has_closed(pair: tuple[socket.socket, socket.socket]) -> None:
    pair[0].send(pack(DONE)[:-1])
    pair[0].close()
    with pytest.raises(EOFError, match="within a frame"):
        receive(pair[1], REPLIES)
    with pytest.raises(EOFError, match="has closed"):
        receive(pair[1], REPLIES)


@pytest.mark.parametrize("length", [LIMIT + 1, 2**32 - 1])
def test_too_long_a_frame_is_refused_before_it_is_read(
    pair: tuple[socket.socket, socket.socket], length: int
) -> None:
    reader = FrameReader(pair[1], REPLIES)
    for read in (reader.next, lambda: receive(pair[1], REPLIES)):
        pair[0].send(struct.pack("<I", length))
        if read == reader.next:
            reader.fill()
        tracemalloc.start()
        with pytest.raises(ProtocolError, match=f"{length} bytes"):
            read()
        assert tracemalloc.get_traced_memory()[1] < 100_000
        tracemalloc.stop()


def test_too_long_a_frame_is_not_sent() -> None:
    with pytest.raises(ProtocolError, match=f"limit is {LIMIT}"):
        pack({**DONE, "op": "x" * LIMIT})


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "not a frame"),
        (b"\xc1", "not a frame"),
        (body(DONE) + b"\x00", "not a frame"),
        (body([1]), "unknown kind"),
        (body({**DONE, "op": "pay"}), "unknown kind"),
        (body({**DONE, "op": ["done"]}), "unknown kind"),
        (body({"number": 3}), "unknown kind"),
        (body({"op": "done", "number": 3}), "has the fields number"),
        (body({**DONE, "more": 1}), "has the fields"),
        (body({**DONE, "number": 3.0}), "`number` of `done` is no int"),
        (body({**DONE, "number": True}), "`number` of `done` is no int"),
        (body({**DONE, "number": "3"}), "`number` of `done` is no int"),
        (b"\x82\xa1a\x01\xa1a\x02", "a key comes twice"),
        (b"\x81\x01\x02", "not a frame"),  # a key that is no text
        (body({**DONE, "number": b"3"}), "not a frame"),
        (body({**DONE, "number": msgpack.ExtType(1, b"3")}), "not a frame"),
        (b"\xdd\xff\xff\xff\xff", "not a frame"),  # an array of 2^32 - 1
        (b"\x91" * 100_000, "not a frame"),  # nested too deeply
        (body({**DONE, "number": [0] * 5000}), "not a frame"),
    ],
)
def test_nonsense_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(ProtocolError, match=message):
        unpack(data, REPLIES)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_frame_or_refused(data: bytes) -> None:
    try:
        frame = unpack(data, REPLIES)
    except ProtocolError:
        return
    assert frame["op"] in REPLIES
