"""Comparison with recorded arrays, and where the records lie."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).parent


def cases(category: str) -> dict[str, dict[str, Any]]:
    """Tolerances and settings of every recorded case of a category, by name."""
    read: dict[str, dict[str, Any]] = json.loads(
        (HERE / category / "cases.json").read_text()
    )
    return read


def arrays(file: str | Path) -> dict[str, Any]:
    """All arrays of a recorded `.npz` file."""
    with np.load(HERE / file) as recorded:
        return dict(recorded)


@dataclass
class Tolerance:
    """|got - expected| <= atol + rtol * |expected|, with atol for some arrays apart."""

    rtol: float
    atol: float
    atol_by_array: Mapping[str, float] = field(default_factory=dict)

    def check(self, key: str, got: Any, expected: Any) -> None:
        """Assert that an array is close to the recorded one of name `key`."""
        got, expected = np.asarray(got), np.asarray(expected)
        assert got.shape == expected.shape, f"{key}: {got.shape} for {expected.shape}"
        atol = self.atol_by_array.get(key, self.atol)
        np.testing.assert_allclose(
            got, expected, rtol=self.rtol, atol=atol, err_msg=key, equal_nan=True
        )


def tolerance(case: Mapping[str, Any]) -> Tolerance:
    """The tolerance of a case."""
    return Tolerance(case["rtol"], case["atol"], case.get("atol_by_array", {}))
