"""MXNet's optimizer states as MXNet 1.9.1 wrote them, and files that are none."""

from __future__ import annotations

import os
import pickle
import struct
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import asyncmod as mx
from asyncmod.interop.mxnet_states import is_pickle, load_optimizer_states
from asyncmod.optimizer import OptimizerStatesError
from tests.asyncmod.interop.test_pickled_data import HOSTILE, Payload
from tests.golden.arrays import HERE, arrays

STATES = HERE / "states"
FILES = sorted(path.name for path in STATES.glob("*.states"))
PARAMETERS = ("fc1_weight", "fc1_bias", "fc2_weight", "fc2_bias")


def flat(state: Any) -> list[Any]:
    if isinstance(state, tuple):
        return [array for part in state for array in flat(part)]
    return [] if state is None else [state]


@pytest.mark.parametrize("name", ["half_sgd", "half_adam"])
def test_arrays_are_what_mxnet_saved(name: str) -> None:
    recorded = arrays("states/arrays.npz")
    states = load_optimizer_states(STATES / f"{name}.states")
    assert list(states) == [0, 1, 2, 3]
    for index, parameter in enumerate(PARAMETERS):
        found = flat(states[index])
        for i, array in enumerate(found):
            expected = recorded[f"{name}.state.{parameter}.{i}"]
            assert isinstance(array, mx.nd.NDArray)
            assert array.dtype == expected.dtype
            np.testing.assert_array_equal(array, expected)
        assert f"{name}.state.{parameter}.{len(found)}" not in recorded


def test_all_protocols_hold_the_same() -> None:
    expected = load_optimizer_states(STATES / "adam.states")
    for protocol in (0, 2, 5):
        found = load_optimizer_states(STATES / f"adam_protocol_{protocol}.states")
        assert found.keys() == expected.keys()
        for key, state in expected.items():
            np.testing.assert_array_equal(found[key][0], state[0])
            np.testing.assert_array_equal(found[key][1], state[1])


def test_states_may_be_none_or_by_name() -> None:
    plain = load_optimizer_states(STATES / "sgd_plain.states")
    assert plain == dict.fromkeys(range(4))
    named = load_optimizer_states(STATES / "adam_two_devices.states")
    assert set(named) == set(PARAMETERS)


def test_an_optimizer_in_the_file_is_left_aside() -> None:
    mean, variance = load_optimizer_states(STATES / "with_optimizer.states")[0]
    np.testing.assert_array_equal(mean, 2 * [1 - np.float32(0.9)])
    np.testing.assert_array_equal(variance, 2 * [1 - np.float32(0.999)])


@pytest.mark.parametrize("name", FILES)
def test_files_are_told_apart(name: str) -> None:
    assert is_pickle(STATES / name)


def test_our_own_files_are_no_pickles(tmp_path: Path) -> None:
    file = tmp_path / "own"
    for content in (b"", b"\x86\xa6format", b"\x93NUMPY", b"\x80", b"\x81\x01"):
        file.write_bytes(content)
        assert is_pickle(file) is (content == b"\x80")


def refused(file: Path, content: bytes, reason: str) -> None:
    file.write_bytes(content)
    tracemalloc.start()
    try:
        with pytest.raises(OptimizerStatesError, match=reason) as caught:
            load_optimizer_states(file)
        assert str(file) in str(caught.value)
        assert tracemalloc.get_traced_memory()[1] < 2**22
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE)
def test_damaged_files(content: bytes, tmp_path: Path) -> None:
    refused(tmp_path / "a.states", content, "no pickle of plain data")


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_a_payload_is_named_and_not_run(protocol: int, tmp_path: Path) -> None:
    trace = tmp_path / "was here"
    payload = Payload(os.system, f"touch '{trace}'")
    for held in (payload, {0: payload}, {0: (None, payload)}):
        content = pickle.dumps(held, protocol)
        refused(tmp_path / "a.states", content, "a call of `posix.system`, which is")
    assert not trace.exists()
    pickle.loads(content)
    assert trace.exists()


# What an array of MXNet is in a pickle; its record is said in between.
_ARRAY = b"cmxnet.ndarray.ndarray\nNDArray\n(NtR}X\x06\x00\x00\x00handle", b"sb"


def record(dims: tuple[int, ...], values: bytes = b"", storage: int = 0) -> bytes:
    shape = struct.pack(f"<i{len(dims)}q", len(dims), *dims)
    head = struct.pack("<Ii", 0xF993FAC9, storage) + (shape if storage else b"") + shape
    return head + struct.pack("<iii", 1, 0, 0) + values


def array_of(record: bytes) -> bytes:
    length = struct.pack("<I", len(record))
    made = b"cbuiltins\nbytearray\n(B" + length + record + b"tR"
    return _ARRAY[0] + made + _ARRAY[1]


def states_of(*states: bytes) -> bytes:
    items = b"".join(b"K" + bytes([i]) + state for i, state in enumerate(states))
    return b"\x80\x04}(" + items + b"u."


WRONG = {
    "a list": (b"\x80\x04].", "a list, no dict"),
    "a number as state": (states_of(b"K\x01"), "a state is a int"),
    "a text as state": (states_of(b"X\x01\x00\x00\x00a"), "a state is a str"),
    "a class": (states_of(b"cmxnet.ndarray\nNDArray\n"), "a state is a Function"),
    "tuples in tuples": (states_of(b")\x85\x85\x85"), "a state is a tuple"),
    "another array": (
        states_of(b"cnumpy\nzeros\n(J\xff\xff\xff\x7ftR"),
        "a call of `numpy.zeros`, which is not done",
    ),
    "room for 2 GB": (
        states_of(
            _ARRAY[0] + b"cbuiltins\nbytearray\n(J\xff\xff\xff\x7ftR" + _ARRAY[1]
        ),
        "an array has no values",
    ),
    "no state": (states_of(b"cmxnet.ndarray\nNDArray\n(NtR"), "an array has no values"),
    "a huge shape": (states_of(array_of(record((2**40,)))), "bytes are left|are left"),
    "a negative shape": (states_of(array_of(record((-1,)))), "shape would be"),
    "too many values": (states_of(array_of(record((1,), bytes(8)))), "too many"),
    "a record that ends": (states_of(array_of(record((2,), bytes(4)))), "cut off"),
}


@pytest.mark.parametrize(("content", "reason"), WRONG.values(), ids=WRONG)
def test_what_is_no_state(content: bytes, reason: str, tmp_path: Path) -> None:
    refused(tmp_path / "a.states", content, reason)


def test_one_array_many_times_is_made_once(tmp_path: Path) -> None:
    """The bytes of a record may be named again and again, its arrays may not."""
    large = record((25_000,), bytes(100_000))
    file = tmp_path / "a.states"
    file.write_bytes(states_of(array_of(large) + b"q\x00", *[b"h\x00"] * 50))
    states = load_optimizer_states(file)
    assert len(states) == 51
    assert all(state is states[0] for state in states.values())
    length = struct.pack("<I", len(large))
    first = _ARRAY[0] + b"cbuiltins\nbytearray\n(B" + length + large + b"q\x00tR"
    again = _ARRAY[0] + b"cbuiltins\nbytearray\n(h\x00tR"
    content = states_of(first + _ARRAY[1], *[again + _ARRAY[1]] * 50)
    refused(file, content, "more bytes than the file")
