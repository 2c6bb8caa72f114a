"""Operators without inputs: arrays filled with a constant."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from runtime.errors import OperatorError
from runtime.graph.registry import Array, Mode, Operator, Shapes, register
from runtime.graph.shapes import unify
from runtime.ops.rules import Dtypes


@dataclass(frozen=True)
class Fill:
    """Attributes; sizes of 0 are inferred from the users. `ctx` has no effect."""

    shape: tuple[int, ...] = ()
    ctx: str = ""
    dtype: str = "float32"


@dataclass(frozen=True)
class FillValue(Fill):
    """Attributes of `_full`."""

    value: float = 0.0


def _shape(p: Fill, inputs: Shapes, outputs: Shapes) -> tuple[Shapes, Shapes]:
    return [], [unify(outputs[0], p.shape or None, "output")]


def _dtype(p: Fill, inputs: Dtypes, outputs: Dtypes) -> tuple[Dtypes, Dtypes]:
    try:
        return [], [np.dtype(p.dtype)]
    except TypeError:
        raise OperatorError(f"`dtype` (={p.dtype!r}) is not a dtype") from None


def _register(name: str, value: float | None) -> None:
    def forward(
        p: Fill, inputs: Sequence[Array], outputs: Sequence[Array], mode: Mode
    ) -> None:
        outputs[0][...] = p.value if isinstance(p, FillValue) else value

    register(
        Operator(
            name=name,
            attributes=Fill if value is not None else FillValue,
            inputs=(),
            shape=_shape,
            dtype=_dtype,
            forward=forward,
        )
    )


_register("_zeros", 0)
_register("_ones", 1)
_register("_full", None)
