"""Errors that cross between processes: as themselves, or as their nearest kin."""

from __future__ import annotations

import numpy as np
import pytest

from runtime.errors import DeviceError, GradientError, ShapeError
from runtime.transport.errors import describe, rebuild
from runtime.transport.frames import REPLIES, pack, unpack


class OwnError(ValueError):
    """Something that the other process has never heard of."""


def cross(error: BaseException) -> Exception:
    frame = {"op": "failed", "number": 1, "generation": 1, "at": 0, **describe(error)}
    return rebuild(unpack(pack(frame)[4:], REPLIES), "worker 7")


@pytest.mark.parametrize(
    "error",
    [
        ValueError("a"),
        MemoryError("b"),
        ShapeError("c"),
        GradientError("d"),
        DeviceError(""),
        ZeroDivisionError("é \U0001f600"),
        KeyError("name"),
        OSError("disk"),
    ],
)
def test_known_ones_stay_what_they_are(error: Exception) -> None:
    again = cross(error)
    assert type(again) is type(error)
    assert str(again) == str(error)


def test_memory_errors_of_numpy_are_memory_errors() -> None:
    with pytest.raises(MemoryError) as caught:
        np.empty(1 << 58)
    again = cross(caught.value)
    assert type(again) is MemoryError
    assert str(again).startswith("Unable to allocate")


def test_unknown_ones_become_their_base_and_keep_their_name() -> None:
    again = cross(OwnError("what"))
    assert type(again) is ValueError
    assert str(again) == "OwnError: what"
    decoding = cross(UnicodeDecodeError("ascii", b"\xff", 0, 1, "no"))
    assert type(decoding) is UnicodeError  # the other one wants five arguments
    assert str(decoding).startswith("UnicodeDecodeError: 'ascii' codec")


def test_notes_and_traceback_come_along() -> None:
    def deep() -> None:
        raise ValueError("x")

    with pytest.raises(ValueError, match="x") as caught:
        deep()
    caught.value.add_note("in the forward of `fc1`")
    notes = cross(caught.value).__notes__
    assert notes[0] == "in the forward of `fc1`"
    assert notes[1].startswith("in worker 7:\n")
    assert "in deep" in notes[1]


def test_whatever_an_error_says_it_fits_into_a_frame() -> None:
    error = ValueError("\U0001f600" * 500_000)
    for _ in range(100):
        error.add_note("\U0001f600" * 100_000)
    assert str(cross(error)).startswith("\U0001f600")
    assert str(cross(ValueError("\ud800"))) == "?"


def test_a_type_that_nobody_knows() -> None:
    fields = {"type": "SystemExit", "message": "m", "notes": [], "trace": ""}
    assert type(rebuild(fields, "")) is DeviceError
