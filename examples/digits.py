"""The handwritten digits that the examples share; see data/README.md."""

from __future__ import annotations

from pathlib import Path

import numpy as np

DIGITS = Path(__file__).parent / "data" / "digits.csv.gz"


def load_digits(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Images (1797, 1, 8, 8) from 0 to 1, and digits, in a shuffled order."""
    table = np.loadtxt(DIGITS, delimiter=",", dtype=np.float32)
    np.random.default_rng(seed).shuffle(table)
    return table[:, :64].reshape(-1, 1, 8, 8) / 16, table[:, 64]
