"""Philox4x32-10, and the numbers that nodes draw from it."""

from __future__ import annotations

import numpy as np
import pytest

from runtime.ops.random import PhiloxSource, philox


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [  # From Random123's kat_vectors.
        (
            (0, 0, 0, 0),
            (0, 0),
            (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8),
        ),
        (
            (0xFFFFFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0xFFFFFFFF),
            (0xFFFFFFFF, 0xFFFFFFFF),
            (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD),
        ),
        (  # Digits of pi.
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)
def test_published_vectors(
    counter: tuple[int, ...], key: tuple[int, int], expected: tuple[int, ...]
) -> None:
    assert tuple(philox(counter, key)) == expected


def test_counters_broadcast() -> None:
    words = philox((np.arange(3), np.arange(2)[:, None], 5, 6), (7, 8))
    assert words.shape == (2, 3, 4)
    assert words[1, 2].tolist() == philox((2, 1, 5, 6), (7, 8)).tolist()


@pytest.mark.parametrize("shape", [(6,), (6, 1), (6, 5), (6, 2, 3, 4)])
def test_rows_do_not_depend_on_the_split(shape: tuple[int, ...]) -> None:
    whole = PhiloxSource(1, 2, 3).uniform(shape)
    parts = [
        PhiloxSource(1, 2, 3, row=start).uniform((size, *shape[1:]))
        for start, size in ((0, 1), (1, 3), (4, 2))
    ]
    np.testing.assert_array_equal(np.concatenate(parts), whole)


def test_seed_node_and_step_each_change_the_numbers() -> None:
    sources = [
        PhiloxSource(1, 2, 3),
        PhiloxSource(1 + 2**32, 2, 3),
        PhiloxSource(-1, 2, 3),
        PhiloxSource(1, 3, 3),
        PhiloxSource(1, 2, 4),
        PhiloxSource(1, 2, 3, row=64),
    ]
    drawn = np.concatenate([source.uniform((64, 3)) for source in sources])
    assert len(np.unique(drawn.round(6))) > 0.99 * drawn.size


def test_numbers_are_uniform() -> None:
    numbers = PhiloxSource(0, 0, 0).uniform((1000, 100))
    assert numbers.dtype == np.float32
    assert 0 <= numbers.min() < 1e-4
    assert 1 - 1e-4 < numbers.max() < 1
    counts, _ = np.histogram(numbers, bins=64, range=(0, 1))
    expected = numbers.size / 64
    chi_squared = np.square(counts - expected).sum() / expected
    assert 30 < chi_squared < 110  # 63 degrees of freedom: beyond 1e-4 on either side
    assert abs(np.corrcoef(numbers[:, 0], numbers[:, 1])[0, 1]) < 0.1


def test_how_numbers_come_from_blocks() -> None:
    """Fixed for good: checkpoints resume by it, and kernels repeat it."""
    drawn = PhiloxSource(seed=1 + (7 << 32), node=2, step=3, row=5).uniform((2, 6))
    words = [
        word
        for row in (5, 6)
        for block in (0, 1)
        for word in philox((block, row, 2, 3), (1, 7)).tolist()
    ]
    expected = np.array([word >> 8 for word in words]).reshape(2, 8)[:, :6] / 2**24
    assert drawn.tolist() == expected.tolist()
