"""One batch of a workload, as NumPy arrays, for whoever wants NumPy arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from workloads import Workload


def batch_of(workload: Workload) -> tuple[NDArray[Any], NDArray[np.float32]]:
    """Data and labels, the same ones every time."""
    random = np.random.default_rng(0)

    def classes(shape: tuple[int, ...]) -> NDArray[np.float32]:
        return random.integers(0, workload.classes, shape).astype(np.float32)

    if workload.is_sequence:
        data = classes(workload.data_shape)
    else:
        data = random.standard_normal(workload.data_shape, np.float32)
    return data, classes(workload.label_shape)
