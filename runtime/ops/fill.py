"""Operators without inputs: arrays filled with a constant, a range, a diagonal.

Source: MXNet's `src/operator/tensor/init_op.h`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

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


def _dtype(p: Any, inputs: Dtypes, outputs: Dtypes) -> tuple[Dtypes, Dtypes]:
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


@dataclass(frozen=True)
class Arange:
    """Attributes of `_arange`; no `stop` counts from 0 to `start`.

    Attributes:
        repeat: How many times each number stands in a row.
        infer_range: Take the length from the users instead of from `stop`.
    """

    start: float
    stop: float | None = None
    step: float = 1.0
    repeat: int = 1
    infer_range: bool = False
    ctx: str = ""
    dtype: str = "float32"


def _arange_shape(p: Arange, inputs: Shapes, outputs: Shapes) -> tuple[Shapes, Shapes]:
    if p.step == 0 or p.repeat < 1:
        raise OperatorError(
            f"`step` (={p.step}) must not be 0 and `repeat` (={p.repeat}) be positive"
        )
    if p.infer_range:
        return [], [unify(outputs[0], (0,), "output")]
    start, stop = (0.0, p.start) if p.stop is None else (p.start, p.stop)
    count = ceil((stop - start) / p.step)
    if count < 1:
        raise OperatorError(
            f"there is no number from `start` (={start}) to `stop` (={stop}) in steps "
            f"of {p.step}"
        )
    return [], [unify(outputs[0], (count * p.repeat,), "output")]


def _arange_forward(
    p: Arange, inputs: Sequence[Array], outputs: Sequence[Array], mode: Mode
) -> None:
    start = 0.0 if p.stop is None and not p.infer_range else p.start
    steps = np.arange(len(outputs[0])) // p.repeat
    outputs[0][...] = start + p.step * steps


register(
    Operator(
        name="_arange",
        attributes=Arange,
        inputs=(),
        shape=_arange_shape,
        dtype=_dtype,
        forward=_arange_forward,
    )
)


@dataclass(frozen=True)
class Linspace:
    """Attributes: `num` numbers from `start` to `stop`, that one with `endpoint`."""

    start: float
    stop: float
    num: int
    endpoint: bool = True
    ctx: str = ""
    dtype: str = "float32"


def _linspace_shape(
    p: Linspace, inputs: Shapes, outputs: Shapes
) -> tuple[Shapes, Shapes]:
    if p.num < 1:
        raise OperatorError(f"`num` (={p.num}) must be positive")
    return [], [unify(outputs[0], (p.num,), "output")]


def _linspace_forward(
    p: Linspace, inputs: Sequence[Array], outputs: Sequence[Array], mode: Mode
) -> None:
    outputs[0][...] = np.linspace(p.start, p.stop, p.num, p.endpoint)


@dataclass(frozen=True)
class Eye:
    """Attributes: ones on diagonal `k` of `N` rows and `M` columns (0: as many)."""

    N: int
    M: int = 0
    k: int = 0
    ctx: str = ""
    dtype: str = "float32"


def _eye_shape(p: Eye, inputs: Shapes, outputs: Shapes) -> tuple[Shapes, Shapes]:
    if p.N < 1 or p.M < 0:
        raise OperatorError(
            f"`N` (={p.N}) must be positive and `M` (={p.M}) not negative"
        )
    return [], [unify(outputs[0], (p.N, p.M or p.N), "output")]


def _eye_forward(
    p: Eye, inputs: Sequence[Array], outputs: Sequence[Array], mode: Mode
) -> None:
    outputs[0][...] = np.eye(p.N, p.M or p.N, p.k)


register(
    Operator(
        name="_linspace",
        attributes=Linspace,
        inputs=(),
        shape=_linspace_shape,
        dtype=_dtype,
        forward=_linspace_forward,
    )
)
register(
    Operator(
        name="_eye",
        attributes=Eye,
        inputs=(),
        shape=_eye_shape,
        dtype=_dtype,
        forward=_eye_forward,
    )
)
