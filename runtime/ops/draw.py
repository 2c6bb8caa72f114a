"""Operators that draw random numbers: of given size, for each element of parameters,
or as many as another array has.

Sources: MXNet's `src/operator/random/sample_op.h`, `multisample_op.h` and
`shuffle_op.cc`. There is no gradient with respect to parameters, as in MXNet.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, make_dataclass
from functools import partial
from typing import Any, Literal

import numpy as np

from runtime.errors import OperatorError
from runtime.graph.registry import (
    Array,
    Mode,
    Operator,
    Shapes,
    register,
)
from runtime.graph.shapes import unify
from runtime.ops import distributions
from runtime.ops.distributions import Draw, source_of
from runtime.ops.rules import Dtypes, one_shape

FloatDtype = Literal["None", "float16", "float32", "float64"]


@dataclass(frozen=True)
class Distribution:
    """One of them.

    Attributes:
        name: MXNet's.
        draw: See `runtime.ops.distributions`.
        parameters: Names and what they are if they are not given.
        rule: What parameters must be, for the error.
        holds: Whether they are that.
    """

    name: str
    draw: Draw
    parameters: dict[str, float]
    rule: str
    holds: Any


DISTRIBUTIONS = (
    Distribution(
        "uniform",
        distributions.uniform,
        {"low": 0.0, "high": 1.0},
        "`low` must not be above `high`",
        lambda low, high: low <= high,
    ),
    Distribution(
        "normal",
        distributions.normal,
        {"loc": 0.0, "scale": 1.0},
        "`scale` must be positive",
        lambda loc, scale: scale > 0,
    ),
    Distribution(
        "gamma",
        distributions.gamma,
        {"alpha": 1.0, "beta": 1.0},
        "`alpha` and `beta` must be positive",
        lambda alpha, beta: (alpha > 0) & (beta > 0),
    ),
    Distribution(
        "exponential",
        distributions.exponential,
        {"lam": 1.0},
        "`lam` must be positive",
        lambda lam: lam > 0,
    ),
    Distribution(
        "poisson",
        distributions.poisson,
        {"lam": 1.0},
        "`lam` must not be negative",
        lambda lam: lam >= 0,
    ),
    Distribution(
        "negative_binomial",
        distributions.negative_binomial,
        {"k": 1.0, "p": 1.0},
        "`k` must be positive, and `p` in (0, 1]",
        lambda k, p: (k > 0) & (p > 0) & (p <= 1),
    ),
    Distribution(
        "generalized_negative_binomial",
        distributions.generalized_negative_binomial,
        {"mu": 1.0, "alpha": 1.0},
        "`mu` and `alpha` must not be negative",
        lambda mu, alpha: (mu >= 0) & (alpha >= 0),
    ),
)


def _check(kind: Distribution, values: Sequence[Any]) -> None:
    if not np.all(kind.holds(*values)):
        given = ", ".join(
            f"{name} = {value}"
            for name, value in zip(kind.parameters, values, strict=True)
        )
        raise OperatorError(f"{kind.rule}, but {given}")


def _attributes(kind: Distribution, *more: tuple[str, Any, Any]) -> type:
    parameters = [(name, float, value) for name, value in kind.parameters.items()]
    made = make_dataclass(
        f"{kind.name}_attributes",
        [*parameters, *more],
        frozen=True,
        namespace={
            "__doc__": f"Attributes: parameters of the distribution; {kind.rule}."
        },
    )
    made.__module__ = __name__
    return made


def _values(kind: Distribution, p: Any) -> list[Any]:
    return [getattr(p, name) for name in kind.parameters]


def _dtype_of(p: Any, default: Any) -> Any:
    return default if p.dtype == "None" else np.dtype(p.dtype)


def _forward(
    kind: Distribution,
    p: Any,
    inputs: Sequence[Array],
    outputs: Sequence[Array],
    mode: Mode,
) -> None:
    """The definition for parameters that are numbers."""
    kind.draw(source_of(mode), _values(kind, p), outputs[0])


def _register_random(kind: Distribution) -> None:
    """`_random_x`: numbers of one distribution, in any shape."""

    def shape(p: Any, inputs: Shapes, outputs: Shapes) -> tuple[Shapes, Shapes]:
        _check(kind, _values(kind, p))
        return [], [unify(outputs[0], p.shape or None, "output")]

    def dtype(p: Any, inputs: Dtypes, outputs: Dtypes) -> tuple[Dtypes, Dtypes]:
        return [], [_dtype_of(p, np.dtype(np.float32))]

    register(
        Operator(
            name=f"_random_{kind.name}",
            aliases=_aliases(kind.name),
            attributes=_attributes(
                kind,
                ("shape", tuple[int, ...], ()),
                ("ctx", str, ""),
                ("dtype", FloatDtype, "None"),
            ),
            inputs=(),
            shape=shape,
            dtype=dtype,
            forward=partial(_forward, kind),
            is_random=True,
        )
    )


def _aliases(name: str) -> tuple[str, ...]:
    short = (name,) if name in ("uniform", "normal") else ()
    return (f"random_{name}", *short)


def _register_like(kind: Distribution) -> None:
    """`_random_x_like`: as many numbers as the input has, in its shape."""

    def shape(p: Any, inputs: Shapes, outputs: Shapes) -> tuple[Shapes, Shapes]:
        _check(kind, _values(kind, p))
        return one_shape(p, inputs, outputs)

    register(
        Operator(
            name=f"_random_{kind.name}_like",
            attributes=_attributes(kind),
            shape=shape,
            forward=partial(_forward, kind),
            is_random=True,
        )
    )


@dataclass(frozen=True)
class Sample:
    """Attributes.

    Attributes:
        shape: How many numbers for each element of the parameters; one without axes of
            its own if this is empty.
        dtype: Of the output; that of the parameters if it is None.
    """

    shape: tuple[int, ...] = ()
    dtype: FloatDtype = "None"


def _register_sample(kind: Distribution) -> None:
    """`_sample_x`: numbers for each element of arrays of parameters."""

    def shape(p: Sample, inputs: Shapes, outputs: Shapes) -> tuple[Shapes, Shapes]:
        inputs, _ = one_shape(p, inputs, [])
        known = inputs[0]
        if known is None:
            return inputs, outputs
        return inputs, [unify(outputs[0], (*known, *p.shape), "output")]

    def dtype(p: Sample, inputs: Dtypes, outputs: Dtypes) -> tuple[Dtypes, Dtypes]:
        found = next((dtype for dtype in inputs if dtype is not None), None)
        return [found] * len(inputs), [_dtype_of(p, found)]

    def forward(
        p: Sample, inputs: Sequence[Array], outputs: Sequence[Array], mode: Mode
    ) -> None:
        _check(kind, inputs)
        (output,) = outputs
        wide = [array.reshape(array.shape + (1,) * len(p.shape)) for array in inputs]
        kind.draw(source_of(mode), wide, output)

    register(
        Operator(
            name=f"_sample_{kind.name}",
            aliases=(f"sample_{kind.name}",),
            attributes=Sample,
            inputs=tuple(kind.parameters),
            shape=shape,
            dtype=dtype,
            forward=forward,
            is_random=True,
        )
    )


for _kind in DISTRIBUTIONS:
    _register_random(_kind)
    _register_like(_kind)
    _register_sample(_kind)


@dataclass(frozen=True)
class RandomIntegers:
    """Attributes: integers of [low, high)."""

    low: int
    high: int
    shape: tuple[int, ...] = ()
    ctx: str = ""
    dtype: Literal["None", "int32", "int64"] = "None"


def _integers_shape(
    p: RandomIntegers, inputs: Shapes, outputs: Shapes
) -> tuple[Shapes, Shapes]:
    if p.low >= p.high:
        raise OperatorError(f"`low` (={p.low}) must be below `high` (={p.high})")
    return [], [unify(outputs[0], p.shape or None, "output")]


def _integers_dtype(
    p: RandomIntegers, inputs: Dtypes, outputs: Dtypes
) -> tuple[Dtypes, Dtypes]:
    return [], [_dtype_of(p, np.dtype(np.int32))]


def _integers(
    p: RandomIntegers, inputs: Sequence[Array], outputs: Sequence[Array], mode: Mode
) -> None:
    distributions.integers(source_of(mode), (p.low, p.high), outputs[0])


register(
    Operator(
        name="_random_randint",
        aliases=("random_randint",),
        attributes=RandomIntegers,
        inputs=(),
        shape=_integers_shape,
        dtype=_integers_dtype,
        forward=_integers,
        is_random=True,
    )
)


def _shuffle(
    p: Any, inputs: Sequence[Array], outputs: Sequence[Array], mode: Mode
) -> None:
    (data,), (output,) = inputs, outputs
    output[...] = data[next(source_of(mode).generators(1)).permutation(len(data))]


register(
    Operator(
        name="_shuffle",
        aliases=("shuffle",),
        shape=one_shape,
        forward=_shuffle,
        is_random=True,
    )
)
