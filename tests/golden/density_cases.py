"""Densities of distributions: inputs and attributes, recorded with MXNet 1.9.1."""

from __future__ import annotations

from typing import Any

import numpy as np

_RANDOM = np.random.RandomState(12)


def _between(low: float, high: float, *shape: int) -> np.ndarray[Any, Any]:
    return _RANDOM.uniform(low, high, shape)


def _counts(*shape: int) -> np.ndarray[Any, Any]:
    return _RANDOM.randint(0, 6, shape).astype(np.float64)


_INPUTS = {
    "uniform": [_between(1, 2, 2, 3), _between(-1, 0, 2), _between(3, 4, 2)],
    "normal": [_between(-1, 1, 2, 3), _between(-1, 1, 2), _between(0.5, 2, 2)],
    "gamma": [_between(0.5, 3, 2, 3), _between(1, 4, 2), _between(0.5, 2, 2)],
    "exponential": [_between(0.5, 3, 2, 2, 3), _between(0.5, 2, 2, 2)],
    "poisson": [_counts(2, 3), _between(1, 3, 2)],
    "negative_binomial": [_counts(2, 3), _between(1, 4, 2), _between(0.2, 0.8, 2)],
    "generalized_negative_binomial": [
        _counts(2, 3),
        _between(1, 3, 2),
        _between(0.5, 2, 2),
    ],
    "dirichlet": [_between(0.1, 0.9, 2, 4, 3), _between(0.5, 3, 2, 3)],
}
CASES: dict[str, tuple[str, list[Any], dict[str, Any]]] = {
    f"{name}_{is_log:d}": (f"random_pdf_{name}", inputs, {"is_log": is_log})
    for name, inputs in _INPUTS.items()
    for is_log in (False, True)
}
CASES["one_for_each"] = ("random_pdf_exponential", [_INPUTS["poisson"][1]] * 2, {})
CASES["one_dirichlet"] = (
    "random_pdf_dirichlet",
    [_between(0.1, 0.9, 4, 3), _between(0.5, 3, 3)],
    {},
)
