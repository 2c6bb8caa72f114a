"""Derivatives written as functions of what they read.

The first parameter of a derivative is the output's gradient; the names of the others
say which inputs and outputs it reads, so that nothing else is kept for the backward.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from runtime.graph.registry import Saved


@dataclass(frozen=True)
class Derivative:
    """A derivative with the names of what it reads besides the gradient."""

    function: Callable[..., Any]
    reads: tuple[str, ...]

    def __call__(self, grad: Any, **values: Any) -> Any:
        # Where a derivative has no value it is nan or inf, and nobody's error.
        with np.errstate(all="ignore"):
            return self.function(grad, *(values[name] for name in self.reads))


def derivative(function: Callable[..., Any]) -> Derivative:
    """Take the names from the function's own parameters."""
    return Derivative(function, tuple(inspect.signature(function).parameters)[1:])


def saved(derivatives: Sequence[Derivative], inputs: str, output: str = "y") -> Saved:
    """What derivatives read together: one letter names each input, and the output."""
    names = {name for rule in derivatives for name in rule.reads}
    return Saved(
        inputs=tuple(i for i, name in enumerate(inputs) if name in names),
        outputs=(0,) if output in names else (),
    )
