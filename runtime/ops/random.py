"""Counter-based random numbers: Philox4x32-10.

A number is a pure function of the seed, the node that asks, the count of training
forwards (or that of predictions), and its row in the whole batch. So the backward can
draw a mask again instead of keeping it, and a batch gives the same numbers however it
is split over devices.

Source: Salmon, Moraes, Dror and Shaw, "Parallel Random Numbers: As Easy as 1, 2, 3",
SC11.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod

import numpy as np
from numpy.typing import ArrayLike, NDArray

_MULTIPLIERS = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
_WEYL = 0x9E3779B9, 0xBB67AE85
_LOW = np.uint64(0xFFFFFFFF)
_SHIFT = np.uint64(32)
_ROUNDS = 10
_WORDS = 4
_CACHED_BLOCKS = 4096

Words = NDArray[np.uint32]


def philox(counter: tuple[ArrayLike, ...], key: tuple[int, int]) -> Words:
    """Encrypt counters with Philox4x32-10.

    Args:
        counter: Four arrays of 32-bit words that broadcast against each other.
        key: Two 32-bit words.

    Returns:
        The four words of each block, along a last axis.
    """
    c0, c1, c2, c3 = (np.asarray(word, dtype=np.uint64) for word in counter)
    k0, k1 = key
    for _ in range(_ROUNDS):
        first, second = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]
        c0, c2 = (
            (second >> _SHIFT) ^ c1 ^ np.uint64(k0),
            (first >> _SHIFT) ^ c3 ^ np.uint64(k1),
        )
        c1, c3 = second & _LOW, first & _LOW
        k0, k1 = (k0 + _WEYL[0]) & 0xFFFFFFFF, (k1 + _WEYL[1]) & 0xFFFFFFFF
    return np.stack(np.broadcast_arrays(c0, c1, c2, c3), axis=-1).astype(np.uint32)


@dataclass(frozen=True, slots=True)
class PhiloxSource:
    """The numbers of one node in one step, for one slice of the batch.

    Row r of the whole batch is made of the blocks with counters (0, r, node, step),
    (1, r, node, step) and so on, four numbers each, under the seed as key.

    Attributes:
        seed: Any integer; its low 64 bits count.
        node: The node's position in its graph.
        step: The count of training forwards.
        row: Where the slice begins in the whole batch.
    """

    seed: int
    node: int
    step: int
    row: int = 0

    def uniform(self, shape: tuple[int, ...]) -> NDArray[np.float32]:
        """Numbers in [0, 1), multiples of 2^-24; the first axis counts rows."""
        rows, width = shape[0], prod(shape[1:])
        blocks = np.arange(-(-width // _WORDS))
        key = self.seed & 0xFFFFFFFF, self.seed >> 32 & 0xFFFFFFFF
        numbers = np.empty((rows, width), np.float32)
        # A few rows at a time, so that what the rounds work on stays in the cache.
        step = max(1, _CACHED_BLOCKS // max(1, len(blocks)))
        for start in range(0, rows, step):
            part = numbers[start : start + step]
            row = self.row + start + np.arange(len(part))
            counter = (blocks, row[:, None], self.node, self.step & 0xFFFFFFFF)
            words = philox(counter, key).reshape(len(part), -1)[:, :width]
            np.multiply(words >> np.uint32(8), np.float32(2**-24), out=part)
        return numbers.reshape(shape)

    def generators(self, rows: int) -> Iterator[np.random.Generator]:
        """NumPy's generator for each row of the slice, with streams of its own.

        It is one, put to the beginning of a row when that is asked for.
        """
        key = [self.seed & 0xFFFFFFFFFFFFFFFF, self.node << 32 | self.step & 0xFFFFFFFF]
        bits = np.random.Philox(key=np.array(key, np.uint64), counter=0)
        generator, state = np.random.Generator(bits), bits.state
        for row in range(self.row, self.row + rows):
            state["state"]["counter"][3] = row
            bits.state = state
            yield generator
