"""print_summary: a net as a table, one row per layer."""

from __future__ import annotations

from collections.abc import Sequence

from asyncmod.errors import ArgumentError
from asyncmod.symbol import Symbol
from asyncmod.visualization.layers import Layer, Shapes, layers, without_batch

_HEADINGS = ("Layer (type)", "Output Shape", "Param #", "Previous Layer")


def print_summary(
    symbol: Symbol,
    shape: Shapes | None = None,
    line_length: int = 120,
    positions: Sequence[float] = (0.44, 0.64, 0.74, 1.0),
) -> None:
    """Print the layers with their output shapes, parameters and inputs.

    A weight that several layers share counts in the first of them. Where a shape is
    not known, the shape is left out and the parameters are `?`; the total is then of
    those that are known.

    Args:
        symbol: The net.
        shape: Shapes of its inputs, with the batch, which the table leaves out.
        line_length: Characters per line.
        positions: Where each of the four columns ends, as shares of the line, or in
            characters if the last is more than 1.

    Raises:
        ArgumentTypeError: `symbol` is not a symbol.
        ArgumentError: `shape` does not suffice, or there are not four positions.
        ShapeError: the shapes contradict each other.
    """
    if len(positions) != len(_HEADINGS):
        raise ArgumentError(
            f"`positions` has {len(positions)} entries ({list(positions)}), but the "
            f"table has {len(_HEADINGS)} columns: say where each of them ends"
        )
    scale = line_length if positions[-1] <= 1 else 1
    ends = [int(scale * position) for position in positions]
    rule = "_" * line_length
    found = layers(symbol, shape, hide_weights=True)
    print(rule)
    print(_row(_HEADINGS, ends))
    print("=" * line_length)
    for layer in found:
        for fields in _rows(layer):
            print(_row(fields, ends))
        print("=" * line_length if layer is found[-1] else rule)
    print(f"Total params: {sum(layer.parameters or 0 for layer in found)}")
    print(rule)


def _rows(layer: Layer) -> list[tuple[str, str, str, str]]:
    """One row, and one more for every further input."""
    before = [node.name for node in layer.before] or [""]
    count = "?" if layer.parameters is None else str(layer.parameters)
    title = f"{layer.node.name}({layer.kind})"
    first = (title, without_batch(layer.shape), count, before[0])
    return [first, *(("", "", "", name) for name in before[1:])]


def _row(fields: Sequence[str], ends: Sequence[int]) -> str:
    line = ""
    for field, end in zip(fields, ends, strict=True):
        line = (line + field)[:end].ljust(end)
    return line
