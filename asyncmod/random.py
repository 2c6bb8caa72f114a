"""The seeded generator that initializers and shuffles draw from (`mx.random`).

One Philox generator serves the whole process; `seed` restarts it. Its state is
plain data, so that a checkpoint can carry it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from asyncmod.nd import NDArray, array

_generator = np.random.Generator(np.random.Philox())


def seed(seed_state: Any, ctx: object = "all") -> None:
    """Restart the generator, so that what follows can be repeated.

    Args:
        seed_state: Any integer that is not negative.
        ctx: Accepted for MXNet's sake; all devices follow the one seed.

    Raises:
        ValueError: `seed_state` is negative or no integer.
    """
    global _generator
    if not isinstance(seed_state, int | np.integer) or seed_state < 0:
        raise ValueError(
            f"`seed_state` must be an integer >= 0, not {seed_state!r}: "
            "call, for example, seed(42)"
        )
    _generator = np.random.Generator(np.random.Philox(int(seed_state)))


def generator() -> np.random.Generator:
    """The generator in use; ask anew after `seed` or `set_state`."""
    return _generator


def draw_seed() -> int:
    """A fresh seed below 2**63 for something that keeps its own generator."""
    return int(_generator.integers(2**63))


def get_state() -> dict[str, Any]:
    """The generator's state as plain data: integers, lists and strings."""
    state = _generator.bit_generator.state
    return {
        "counter": state["state"]["counter"].tolist(),
        "key": state["state"]["key"].tolist(),
        "buffer": state["buffer"].tolist(),
        "buffer_pos": int(state["buffer_pos"]),
        "has_uint32": int(state["has_uint32"]),
        "uinteger": int(state["uinteger"]),
    }


def set_state(state: dict[str, Any]) -> None:
    """Continue exactly where `get_state` was called."""
    bits = np.random.Philox(0)
    bits.state = {
        "bit_generator": "Philox",
        "state": {
            "counter": np.array(state["counter"], np.uint64),
            "key": np.array(state["key"], np.uint64),
        },
        "buffer": np.array(state["buffer"], np.uint64),
        "buffer_pos": state["buffer_pos"],
        "has_uint32": state["has_uint32"],
        "uinteger": state["uinteger"],
    }
    global _generator
    _generator = np.random.Generator(bits)


Size = int | tuple[int, ...]


def uniform(
    low: float = 0.0,
    high: float = 1.0,
    shape: Size = (1,),
    dtype: DTypeLike = np.float32,
    ctx: object = None,
    out: np.ndarray[Any, Any] | None = None,
) -> NDArray:
    """Samples of the uniform distribution on [low, high).

    Args:
        low: The smallest number.
        high: The end.
        shape: How many; that of `out`, if given.
        dtype: Of the result.
        ctx: Accepted for MXNet's sake.
        out: An array to fill, and return, instead of a new one.
    """
    return _drawn(lambda size: _generator.uniform(low, high, size), shape, dtype, out)


def normal(
    loc: float = 0.0,
    scale: float = 1.0,
    shape: Size = (1,),
    dtype: DTypeLike = np.float32,
    ctx: object = None,
    out: np.ndarray[Any, Any] | None = None,
) -> NDArray:
    """Samples of the normal distribution.

    Args:
        loc: The mean.
        scale: The standard deviation.
        shape: How many; that of `out`, if given.
        dtype: Of the result.
        ctx: Accepted for MXNet's sake.
        out: An array to fill, and return, instead of a new one.
    """
    return _drawn(lambda size: _generator.normal(loc, scale, size), shape, dtype, out)


def randint(
    low: int,
    high: int,
    shape: Size = (1,),
    dtype: DTypeLike = np.int32,
    ctx: object = None,
    out: np.ndarray[Any, Any] | None = None,
) -> NDArray:
    """Integers of [low, high), each as likely as the other.

    Args:
        low: The smallest number.
        high: The end.
        shape: How many; that of `out`, if given.
        dtype: Of the result.
        ctx: Accepted for MXNet's sake.
        out: An array to fill, and return, instead of a new one.
    """
    return _drawn(lambda size: _generator.integers(low, high, size), shape, dtype, out)


def exponential(
    scale: float = 1.0,
    shape: Size = (1,),
    dtype: DTypeLike = np.float32,
    ctx: object = None,
    out: np.ndarray[Any, Any] | None = None,
) -> NDArray:
    """Samples of the exponential distribution.

    Args:
        scale: The mean.
        shape: How many; that of `out`, if given.
        dtype: Of the result.
        ctx: Accepted for MXNet's sake.
        out: An array to fill, and return, instead of a new one.
    """
    return _drawn(lambda size: _generator.exponential(scale, size), shape, dtype, out)


def gamma(
    alpha: float = 1.0,
    beta: float = 1.0,
    shape: Size = (1,),
    dtype: DTypeLike = np.float32,
    ctx: object = None,
    out: np.ndarray[Any, Any] | None = None,
) -> NDArray:
    """Samples of the gamma distribution, whose mean is `alpha * beta`.

    Args:
        alpha: The shape of the distribution.
        beta: Its scale.
        shape: How many; that of `out`, if given.
        dtype: Of the result.
        ctx: Accepted for MXNet's sake.
        out: An array to fill, and return, instead of a new one.
    """
    return _drawn(lambda size: _generator.gamma(alpha, beta, size), shape, dtype, out)


def poisson(
    lam: float = 1.0,
    shape: Size = (1,),
    dtype: DTypeLike = np.float32,
    ctx: object = None,
    out: np.ndarray[Any, Any] | None = None,
) -> NDArray:
    """Samples of the Poisson distribution.

    Args:
        lam: The mean.
        shape: How many; that of `out`, if given.
        dtype: Of the result.
        ctx: Accepted for MXNet's sake.
        out: An array to fill, and return, instead of a new one.
    """
    return _drawn(lambda size: _generator.poisson(lam, size), shape, dtype, out)


def negative_binomial(
    k: int = 1,
    p: float = 1.0,
    shape: Size = (1,),
    dtype: DTypeLike = np.float32,
    ctx: object = None,
    out: np.ndarray[Any, Any] | None = None,
) -> NDArray:
    """Failures before `k` successes, each of probability `p`.

    Args:
        k: The number of successes.
        p: The probability of one.
        shape: How many; that of `out`, if given.
        dtype: Of the result.
        ctx: Accepted for MXNet's sake.
        out: An array to fill, and return, instead of a new one.
    """
    return _drawn(
        lambda size: _generator.negative_binomial(k, p, size), shape, dtype, out
    )


def generalized_negative_binomial(
    mu: float = 1.0,
    alpha: float = 1.0,
    shape: Size = (1,),
    dtype: DTypeLike = np.float32,
    ctx: object = None,
    out: np.ndarray[Any, Any] | None = None,
) -> NDArray:
    """Poisson distributed numbers whose own mean is gamma distributed.

    Args:
        mu: The mean.
        alpha: How much the mean varies; a Poisson distribution if it is 0.
        shape: How many; that of `out`, if given.
        dtype: Of the result.
        ctx: Accepted for MXNet's sake.
        out: An array to fill, and return, instead of a new one.
    """

    def draw(size: Size) -> Any:
        rate = _generator.gamma(1 / alpha, mu * alpha, size) if alpha else mu
        return _generator.poisson(rate, size)

    return _drawn(draw, shape, dtype, out)


def multinomial(
    data: np.ndarray[Any, Any],
    shape: Size = (),
    get_prob: bool = False,
    dtype: DTypeLike = np.int32,
) -> Any:
    """Numbers of classes, by the probabilities along the last axis of `data`.

    Args:
        data: Probabilities.
        shape: How many draws from each row.
        get_prob: Give the logarithms of the probabilities of what was drawn, too.
        dtype: Of the result.
    """
    from asyncmod.nd.operators import operator_function

    size = (shape,) if isinstance(shape, int) else tuple(shape)
    draw = operator_function("_sample_multinomial")
    return draw(data, shape=size, get_prob=get_prob, dtype=np.dtype(dtype).name)


def randn(
    *shape: int,
    loc: float = 0.0,
    scale: float = 1.0,
    dtype: DTypeLike = np.float32,
    ctx: object = None,
) -> NDArray:
    """`normal`, with the shape first and as single numbers; none give one sample."""
    return normal(loc, scale, shape or (1,), dtype)


def _drawn(
    draw: Callable[[Size], Any],
    shape: Size,
    dtype: DTypeLike,
    out: np.ndarray[Any, Any] | None,
) -> NDArray:
    if out is None:
        return array(draw(shape), dtype=dtype)
    out[...] = draw(out.shape)
    return out.view(NDArray)


def shuffle(data: np.ndarray[Any, Any]) -> NDArray:
    """A copy of `data` with its rows in random order."""
    return array(_generator.permutation(data), dtype=data.dtype)


def __getattr__(name: str) -> Any:
    """`normal_like` and the other operators that take their shape from an array."""
    if not name.endswith("_like"):
        raise AttributeError(f"mx.random has no `{name}`")
    from asyncmod.nd.operators import operator_function

    return operator_function(f"_random_{name}")
