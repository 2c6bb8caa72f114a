"""`mx.sym.random`: symbols of random numbers.

Parameters are numbers, for which `shape` says how many there are, or symbols, for each
element of which there are so many. A shape that is not given follows from the users.
Numbers are keyed by the module's seed, the node, the count of forwards and the row, so
the first axis should be that of the batch.

Source: MXNet, `python/mxnet/symbol/random.py`.
"""

from __future__ import annotations

from typing import Any

from asyncmod.errors import ArgumentTypeError
from asyncmod.shapes import ShapeLike, as_shape
from asyncmod.symbol.namespaces import Namespace
from asyncmod.symbol.operators import operator_function
from asyncmod.symbol.symbol import Symbol

Parameter = Symbol | float


def uniform(
    low: Parameter = 0.0,
    high: Parameter = 1.0,
    shape: ShapeLike = (),
    dtype: Any = "None",
    **kwargs: Any,
) -> Symbol:
    """On [low, high)."""
    return _draw("uniform", {"low": low, "high": high}, shape, dtype, kwargs)


def normal(
    loc: Parameter = 0.0,
    scale: Parameter = 1.0,
    shape: ShapeLike = (),
    dtype: Any = "None",
    **kwargs: Any,
) -> Symbol:
    """With this mean and standard deviation."""
    return _draw("normal", {"loc": loc, "scale": scale}, shape, dtype, kwargs)


def randn(*shape: int, **kwargs: Any) -> Symbol:
    """`normal`, with the shape first and as single numbers."""
    return normal(
        kwargs.pop("loc", 0.0), kwargs.pop("scale", 1.0), shape or (1,), **kwargs
    )


def gamma(
    alpha: Parameter = 1.0,
    beta: Parameter = 1.0,
    shape: ShapeLike = (),
    dtype: Any = "None",
    **kwargs: Any,
) -> Symbol:
    """Gamma distributed: the mean is `alpha * beta`."""
    return _draw("gamma", {"alpha": alpha, "beta": beta}, shape, dtype, kwargs)


def exponential(
    scale: Parameter = 1.0, shape: ShapeLike = (), dtype: Any = "None", **kwargs: Any
) -> Symbol:
    """Exponentially distributed, with this mean."""
    return _draw("exponential", {"lam": 1.0 / scale}, shape, dtype, kwargs)


def poisson(
    lam: Parameter = 1.0, shape: ShapeLike = (), dtype: Any = "None", **kwargs: Any
) -> Symbol:
    """Poisson distributed, with this mean."""
    return _draw("poisson", {"lam": lam}, shape, dtype, kwargs)


def negative_binomial(
    k: Parameter = 1,
    p: Parameter = 1.0,
    shape: ShapeLike = (),
    dtype: Any = "None",
    **kwargs: Any,
) -> Symbol:
    """Failures before `k` successes, each of probability `p`."""
    return _draw("negative_binomial", {"k": k, "p": p}, shape, dtype, kwargs)


def generalized_negative_binomial(
    mu: Parameter = 1.0,
    alpha: Parameter = 1.0,
    shape: ShapeLike = (),
    dtype: Any = "None",
    **kwargs: Any,
) -> Symbol:
    """Poisson distributed; its mean is gamma distributed, with mean `mu`."""
    return _draw(
        "generalized_negative_binomial",
        {"mu": mu, "alpha": alpha},
        shape,
        dtype,
        kwargs,
    )


def randint(
    low: int, high: int, shape: ShapeLike = (), dtype: Any = "None", **kwargs: Any
) -> Symbol:
    """Integers of [low, high)."""
    return operator_function("_random_randint")(
        low=low, high=high, shape=as_shape(shape), dtype=dtype, **kwargs
    )


def multinomial(
    data: Symbol,
    shape: ShapeLike = (),
    get_prob: bool = True,
    dtype: Any = "int32",
    **kwargs: Any,
) -> Symbol:
    """Numbers of classes, by the probabilities along the last axis of `data`."""
    return operator_function("_sample_multinomial")(
        data, shape=as_shape(shape), get_prob=get_prob, dtype=dtype, **kwargs
    )


def shuffle(data: Symbol, **kwargs: Any) -> Symbol:
    """The rows in random order; on several devices each shuffles its own."""
    return operator_function("_shuffle")(data, **kwargs)


_like = Namespace("mx.sym.random", "_random_")


def __getattr__(name: str) -> Any:
    """`normal_like` and the other operators that take their shape from an array."""
    if not name.endswith("_like"):
        raise AttributeError(f"mx.sym.random has no `{name}`")
    return getattr(_like, name)


def _draw(
    name: str,
    parameters: dict[str, Parameter],
    shape: ShapeLike,
    dtype: Any,
    kwargs: dict[str, Any],
) -> Symbol:
    symbols = [isinstance(value, Symbol) for value in parameters.values()]
    if any(symbols) and not all(symbols):
        raise ArgumentTypeError(
            f"mx.sym.random.{name}: {' and '.join(parameters)} must both be symbols, "
            f"or both be numbers, not {', '.join(map(repr, parameters.values()))}"
        )
    operator = operator_function(f"_{'sample' if all(symbols) else 'random'}_{name}")
    return operator(**parameters, shape=as_shape(shape), dtype=dtype, **kwargs)
