"""The checkpoints that tests write, and what is recorded of format version 1."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from asyncmod.checkpoint import CheckpointFile, Header
from asyncmod.checkpoint.layout import DTYPES

GOLDEN = Path(__file__).parents[2] / "golden" / "checkpoint"

HEADER = Header(
    schema="test",
    run="0123456789abcdef",
    created=1_700_000_000.25,
    epoch=3,
    batch=17,
    step=1042,
    state={
        "counts": [[0, 5], [1, -(2**40)]],
        "rate": 0.1,
        "name": "größe",
        "bytes": b"\x00\xff",
        "nothing": None,
        "nested": {"yes": True, "list": []},
    },
)


def every_dtype() -> dict[str, np.ndarray[Any, Any]]:
    """An array of each dtype, in several shapes; one of them is empty, one 0-d."""
    arrays = {
        f"a {name}": (np.arange(6) % 2 if name == "bool" else np.arange(6))
        .astype(dtype)
        .reshape(2, 3)
        for name, dtype in DTYPES.items()
    }
    arrays["empty"] = np.zeros((0, 4), np.float32)
    arrays["scalar"] = np.array(-0.0)
    return arrays


GOLDEN_FILES = {
    "nothing-v1.asyncmod": (replace(HEADER, state={}), {}),
    "every-dtype-v1.asyncmod": (HEADER, every_dtype()),
}


def assert_equal(
    file: CheckpointFile, header: Header, arrays: dict[str, np.ndarray[Any, Any]]
) -> None:
    """The file holds exactly this."""
    assert replace(file.header, segments=()) == header
    assert list(file) == list(arrays)
    for name, array in arrays.items():
        assert file[name].dtype == array.dtype
        assert file[name].shape == array.shape
        assert file[name].tobytes() == array.tobytes()
