"""The seeded generator that initializers and shuffles draw from (`mx.random`).

One Philox generator serves the whole process; `seed` restarts it. Its state is
plain data, so that a checkpoint can carry it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from asyncmod.nd import NDArray, array
from asyncmod.shapes import ShapeLike, as_shape

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


Array = np.ndarray[Any, Any]
Parameter = float | Array


def uniform(
    low: Parameter = 0.0,
    high: Parameter = 1.0,
    shape: ShapeLike = (),
    dtype: DTypeLike = np.float32,
    ctx: object = None,
    out: Array | None = None,
) -> NDArray:
    """Samples of the uniform distribution on [low, high).

    Args:
        low: The smallest number, or an array of them.
        high: The end, or an array of them.
        shape: How many, for each element of arrays; one if it is not given.
        dtype: Of the result.
        ctx: Accepted for MXNet's sake.
        out: An array to fill, and return, instead of a new one.

    Raises:
        ValueError: such a distribution does not exist, or shapes do not fit.
    """
    from runtime.ops.distributions import keep_below

    drawn = _drawn(np.random.Generator.uniform, (low, high), shape, dtype, out)
    keep_below(drawn, low, high)
    return drawn


def normal(
    loc: Parameter = 0.0,
    scale: Parameter = 1.0,
    shape: ShapeLike = (),
    dtype: DTypeLike = np.float32,
    ctx: object = None,
    out: Array | None = None,
) -> NDArray:
    """Samples of the normal distribution with mean `loc` and deviation `scale`.

    `shape`, `dtype`, `ctx` and `out` are those of `uniform`.
    """
    return _drawn(np.random.Generator.normal, (loc, scale), shape, dtype, out)


def randint(
    low: int | Array,
    high: int | Array,
    shape: ShapeLike = (),
    dtype: DTypeLike = np.int32,
    ctx: object = None,
    out: Array | None = None,
) -> NDArray:
    """Integers of [low, high), each as likely as the other.

    `shape`, `dtype`, `ctx` and `out` are those of `uniform`.
    """
    return _drawn(np.random.Generator.integers, (low, high), shape, dtype, out)


def exponential(
    scale: Parameter = 1.0,
    shape: ShapeLike = (),
    dtype: DTypeLike = np.float32,
    ctx: object = None,
    out: Array | None = None,
) -> NDArray:
    """Samples of the exponential distribution, whose mean is `scale`.

    `shape`, `dtype`, `ctx` and `out` are those of `uniform`.
    """
    return _drawn(np.random.Generator.exponential, (scale,), shape, dtype, out)


def gamma(
    alpha: Parameter = 1.0,
    beta: Parameter = 1.0,
    shape: ShapeLike = (),
    dtype: DTypeLike = np.float32,
    ctx: object = None,
    out: Array | None = None,
) -> NDArray:
    """Samples of the gamma distribution, whose mean is `alpha * beta`.

    `shape`, `dtype`, `ctx` and `out` are those of `uniform`.
    """
    return _drawn(np.random.Generator.gamma, (alpha, beta), shape, dtype, out)


def poisson(
    lam: Parameter = 1.0,
    shape: ShapeLike = (),
    dtype: DTypeLike = np.float32,
    ctx: object = None,
    out: Array | None = None,
) -> NDArray:
    """Samples of the Poisson distribution, whose mean is `lam`.

    `shape`, `dtype`, `ctx` and `out` are those of `uniform`.
    """
    return _drawn(np.random.Generator.poisson, (lam,), shape, dtype, out)


def negative_binomial(
    k: Parameter = 1,
    p: Parameter = 1.0,
    shape: ShapeLike = (),
    dtype: DTypeLike = np.float32,
    ctx: object = None,
    out: Array | None = None,
) -> NDArray:
    """Failures before `k` successes, each of probability `p`.

    `shape`, `dtype`, `ctx` and `out` are those of `uniform`.
    """
    return _drawn(np.random.Generator.negative_binomial, (k, p), shape, dtype, out)


def generalized_negative_binomial(
    mu: Parameter = 1.0,
    alpha: Parameter = 1.0,
    shape: ShapeLike = (),
    dtype: DTypeLike = np.float32,
    ctx: object = None,
    out: Array | None = None,
) -> NDArray:
    """Poisson distributed numbers, whose own mean is gamma distributed around `mu`.

    `alpha` says how far; with 0 it is a Poisson distribution.

    `shape`, `dtype`, `ctx` and `out` are those of `uniform`.
    """
    from runtime.ops import distributions

    return _drawn(distributions.poisson_of_gamma, (mu, alpha), shape, dtype, out)


def multinomial(
    data: Array,
    shape: ShapeLike = (),
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

    return operator_function("_sample_multinomial")(
        data, shape=as_shape(shape), get_prob=get_prob, dtype=np.dtype(dtype).name
    )


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
    draw: Callable[..., Any],
    parameters: Sequence[Parameter],
    shape: ShapeLike,
    dtype: DTypeLike,
    out: Array | None,
) -> NDArray:
    """What `draw` makes of the generator, the parameters and a shape."""
    each = np.broadcast_arrays(*parameters)
    whole = (*each[0].shape, *as_shape(shape)) or (1,)
    result = np.empty(whole, dtype) if out is None else out
    if each[0].ndim:
        behind = (1,) * (result.ndim - each[0].ndim)
        each = tuple(array.reshape(array.shape + behind) for array in each)
    result[...] = draw(_generator, *each, result.shape)
    return result.view(NDArray)


def shuffle(data: Array) -> NDArray:
    """A copy of `data` with its rows in random order."""
    return array(_generator.permutation(data), dtype=data.dtype)


def __getattr__(name: str) -> Any:
    """`normal_like` and the other operators that take their shape from an array."""
    if not name.endswith("_like"):
        raise AttributeError(f"mx.random has no `{name}`")
    from asyncmod.nd.operators import operator_function

    return operator_function(f"_random_{name}")
