"""Counter-based random numbers in vectors: the bits of `runtime.ops.random`."""

from __future__ import annotations

from typing import Any

from llvmlite import ir

from runtime.kernels.cpu.lowering import (
    INT32,
    INT64,
    LANES,
    VECTOR,
    Vector,
    lane_numbers,
    primitive,
    spread,
    tuple_type,
)
from runtime.kernels.cpu.tuples import packed

_MULTIPLIERS = 0xD2511F53, 0xCD9E8D57
_WEYL = 0x9E3779B9, 0xBB67AE85
_ROUNDS = 10
_WORDS = 4
_LOW = 0xFFFFFFFF

# 32-bit words in 64-bit lanes, so that a product keeps both its halves.
_LONGS = ir.VectorType(INT64, LANES)
_INTS = ir.VectorType(INT32, LANES)
Numbers = tuple_type([Vector] * _WORDS)


@primitive(Numbers, int, int, int, int, int)
def uniform_numbers(
    builder: Any, seed: Any, node: Any, step: Any, row: Any, block: Any
) -> Any:
    """Numbers 4 * block to 4 * (block + LANES) of a row of `PhiloxSource.uniform`.

    They come as four vectors.
    """
    blocks = spread(builder, builder.trunc(block, INT32), _INTS)
    blocks = builder.add(blocks, lane_numbers(list(range(LANES))))
    c0 = builder.zext(blocks, _LONGS)
    c1, c2, c3 = (_words(builder, word) for word in (row, node, step))
    k0, k1 = seed, builder.lshr(seed, _long(32))
    for _ in range(_ROUNDS):
        first, second = (
            builder.mul(word, _longs(multiplier))
            for word, multiplier in zip((c0, c2), _MULTIPLIERS, strict=True)
        )
        c0, c2 = (
            builder.xor(builder.xor(_high(builder, product), word), _words(builder, k))
            for product, word, k in ((second, c1, k0), (first, c3, k1))
        )
        c1, c3 = (builder.and_(product, _longs(_LOW)) for product in (second, first))
        k0, k1 = builder.add(k0, _long(_WEYL[0])), builder.add(k1, _long(_WEYL[1]))
    words = [builder.trunc(word, _INTS) for word in (c0, c1, c2, c3)]
    return packed(builder, [_fraction(builder, v) for v in _in_order(builder, words)])


def _long(value: int) -> Any:
    return ir.Constant(INT64, value)


def _longs(value: int) -> Any:
    return ir.Constant(_LONGS, [value] * LANES)


def _words(builder: Any, scalar: Any) -> Any:
    """The low 32 bits of a scalar in every lane."""
    return spread(builder, builder.and_(scalar, _long(_LOW)), _LONGS)


def _high(builder: Any, product: Any) -> Any:
    return builder.lshr(product, _longs(32))


def _in_order(builder: Any, words: list[Any]) -> list[Any]:
    """From a vector of each word of the blocks to vectors of block after block."""
    pairs = [
        builder.shuffle_vector(a, b, lane_numbers(list(range(2 * LANES))))
        for a, b in (words[:2], words[2:])
    ]
    every = builder.shuffle_vector(*pairs, lane_numbers(list(range(4 * LANES))))
    order = [(e % _WORDS) * LANES + e // _WORDS for e in range(_WORDS * LANES)]
    return [
        builder.shuffle_vector(
            every, every, lane_numbers(order[k * LANES : (k + 1) * LANES])
        )
        for k in range(_WORDS)
    ]


def _fraction(builder: Any, words: Any) -> Any:
    """The upper 24 bits of each word, as a number in [0, 1)."""
    upper = builder.lshr(words, ir.Constant(_INTS, [8] * LANES))
    return builder.fmul(
        builder.sitofp(upper, VECTOR), ir.Constant(VECTOR, [2.0**-24] * LANES)
    )
