"""Which register tiles there are; see `microkernel` for what they compute."""

from __future__ import annotations

from dataclasses import dataclass

from runtime.kernels.cpu.target import host_target


@dataclass(frozen=True)
class TileShape:
    """One family of tiles, of 1 to `max_rows` rows.

    Attributes:
        vectors: width in vectors, 1 or 2.
        partial: whether the last vector of b may have fewer columns.
        taps: how many steps of the middle loop are done at once (1: it is a loop).
    """

    vectors: int
    partial: bool = False
    taps: int = 1

    @property
    def symbol(self) -> str:
        """Name of the table of the family's functions."""
        partial = "_partial" if self.partial else ""
        return f"asyncmod_tiles_{self.vectors}x{self.taps}{partial}"

    @property
    def max_rows(self) -> int:
        """Rows of the largest tile, whose sums fill the registers.

        More than 16 only help where window columns are rows, which come by threes
        and multiples of 8: in the weight gradient's (partial) tiles.
        """
        rows = host_target().accumulators // self.vectors
        return min(rows, 24 if self.partial else 16)


ONE_VECTOR = TileShape(1)
TWO_VECTORS = TileShape(2)
ONE_VECTOR_THREE_TAPS = TileShape(1, taps=3)
ONE_PARTIAL_VECTOR = TileShape(1, partial=True)
TWO_PARTIAL_VECTORS = TileShape(2, partial=True)

TILE_SHAPES = (
    ONE_VECTOR,
    TWO_VECTORS,
    ONE_VECTOR_THREE_TAPS,
    ONE_PARTIAL_VECTOR,
    TWO_PARTIAL_VECTORS,
)
