"""Guarded memory for the kernels, and a way to run one of them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from numpy.typing import ArrayLike, NDArray

from runtime.kernels.cpu.library import Library, load
from runtime.kernels.cpu.table import ROW, encode, padded

GUARD = 64  # elements before and after every buffer
_PATTERN = np.uint32(0x7FC0BEEF)  # a NaN that arithmetic does not make

Floats = NDArray[np.float32]


class Image:
    """An NHWC image tensor inside a halo of zeros, with padded channels or without."""

    def __init__(
        self, memory: Memory, nchw: ArrayLike, halo: int = 0, unpadded: bool = False
    ) -> None:
        values = np.asarray(nchw, np.float32)
        self.images, self.channels, self.height, self.width = values.shape
        self.halo = halo
        self.whole = memory.zeros(
            self.images,
            self.height + 2 * halo,
            self.width + 2 * halo,
            self.channels if unpadded else padded(self.channels),
        )
        self.nchw[...] = values

    @property
    def interior(self) -> Floats:
        """The image without its halo, all stored channels, NHWC."""
        end = -self.halo or None
        return self.whole[:, self.halo : end, self.halo : end]

    @property
    def nchw(self) -> Floats:
        """The real channels as NCHW."""
        return self.interior[..., : self.channels].transpose(0, 3, 1, 2)

    def fields(self, name: str, h: int = 0, w: int = 0) -> dict[str, int]:
        """The tensor's four fields; h and w move the pixel that is (0, 0)."""
        image, row, pixel, _ = (stride // 4 for stride in self.whole.strides)
        start = self.whole.ctypes.data
        start += 4 * ((h + self.halo) * row + (w + self.halo) * pixel)
        return {
            name: start,
            f"{name}_image": image,
            f"{name}_row": row,
            f"{name}_pixel": pixel,
        }

    def check_padding(self) -> None:
        """Halo and padding channels must still be zero."""
        assert not self.whole[..., self.channels :].any()
        rest = self.whole.copy()
        end = -self.halo or None
        rest[:, self.halo : end, self.halo : end] = 0
        assert not rest.any()


class Memory:
    """Buffers with guard zones that no kernel may touch."""

    def __init__(self) -> None:
        self._buffers: list[NDArray[np.uint32]] = []

    def array(self, values: ArrayLike, dtype: type = np.float32) -> NDArray[np.generic]:
        """Guarded copy of an array."""
        source = np.asarray(values, dtype)
        words = -(-source.nbytes // 4)
        buffer = np.full(words + 2 * GUARD, _PATTERN, np.uint32)
        self._buffers.append(buffer)
        inside = buffer[GUARD : GUARD + words].view(np.uint8)[: source.nbytes]
        result = inside.view(source.dtype).reshape(source.shape)
        result[...] = source
        return result

    def zeros(self, *shape: int) -> Floats:
        """Guarded float32 zeros."""
        return self.array(np.zeros(shape))

    def nans(self, *shape: int) -> Floats:
        """Guarded float32 NaNs: a result that is not written shows."""
        return self.array(np.full(shape, np.nan))

    def image(self, nchw: ArrayLike, halo: int = 0, unpadded: bool = False) -> Image:
        """Guarded image tensor."""
        return Image(self, nchw, halo, unpadded)

    def check(self) -> None:
        """Assert that all guard zones are intact."""
        for buffer in self._buffers:
            assert (buffer[:GUARD] == _PATTERN).all(), "written before a buffer"
            assert (buffer[-GUARD:] == _PATTERN).all(), "written after a buffer"


class Kernels:
    """Runs single kernels."""

    def __init__(self, library: Library) -> None:
        self.library = library

    def __call__(self, name: str, **fields: object) -> None:
        values = {
            key: value.ctypes.data if isinstance(value, np.ndarray) else value
            for key, value in fields.items()
        }
        row = encode(name, values)  # type: ignore[arg-type]
        row[0] = self.library.address(name)
        assert row.size == ROW
        self.library.run(row.ctypes.data, 1)


@pytest.fixture(scope="session")
def kernels() -> Kernels:
    library = load()
    if not library.available:
        pytest.skip("needs numba")
    return Kernels(library)


@pytest.fixture
def memory() -> Iterator[Memory]:
    memory = Memory()
    yield memory
    memory.check()


@pytest.fixture
def random() -> np.random.Generator:
    return np.random.default_rng(7)
