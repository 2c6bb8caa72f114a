"""print_summary: a net as a table, one row per layer."""

from __future__ import annotations

from collections.abc import Sequence

from asyncmod.errors import ArgumentError
from asyncmod.symbol import Symbol
from asyncmod.visualization.cost import activation_bytes
from asyncmod.visualization.layers import Layer, Shapes, layers, without_batch

_HEADINGS = ("Layer (type)", "Output Shape", "Param #", "FLOPs", "Previous Layer")
_POSITIONS = (0.38, 0.56, 0.66, 0.78, 1.0)
_FLOPS = 3  # the column that MXNet's table does not have


def print_summary(
    symbol: Symbol,
    shape: Shapes | None = None,
    line_length: int = 120,
    positions: Sequence[float] = _POSITIONS,
) -> None:
    """Print the layers with their output shapes, parameters, FLOPs and inputs.

    A weight that several layers share counts in the first of them. FLOPs are the
    floating point operations of a forward over the whole batch, a multiplication and an
    addition counting as two. Below stand the totals, and the bytes that lie between the
    layers by the memory plan of one CPU device, for predicting and for training.

    Where a shape is not known, it is left out and parameters and FLOPs are `?`; the
    totals are then of those that are known.

    Args:
        symbol: The net.
        shape: Shapes of its inputs, with the batch, which the table leaves out.
        line_length: Characters per line.
        positions: Where each of the five columns ends, as shares of the line, or in
            characters if the last is more than 1. Four positions give MXNet's table,
            without FLOPs.

    Raises:
        ArgumentTypeError: `symbol` is not a symbol.
        ArgumentError: `shape` does not suffice, or there are not four or five
            positions.
        ShapeError: the shapes contradict each other.
    """
    columns = [*range(len(_HEADINGS))]
    if len(positions) == len(_HEADINGS) - 1:
        columns.remove(_FLOPS)
    elif len(positions) != len(_HEADINGS):
        raise ArgumentError(
            f"`positions` has {len(positions)} entries ({list(positions)}), but the "
            f"table has {len(_HEADINGS)} columns, or 4 without FLOPs: say where each "
            "of them ends"
        )
    scale = line_length if positions[-1] <= 1 else 1
    ends = [int(scale * position) for position in positions]
    rule = "_" * line_length
    found = layers(symbol, shape, hide_weights=True)
    totals = _totals(symbol, found, planned=shape is not None)
    print(rule)
    print(_row([_HEADINGS[column] for column in columns], ends))
    print("=" * line_length)
    for layer in found:
        for fields in _rows(layer):
            print(_row([fields[column] for column in columns], ends))
        print("=" * line_length if layer is found[-1] else rule)
    for total in totals:
        print(total)
    print(rule)


def _totals(symbol: Symbol, found: Sequence[Layer], planned: bool) -> list[str]:
    """The lines below the table; the parameters last, as in MXNet."""
    lines = [f"Total params: {sum(layer.parameters or 0 for layer in found)}"]
    if not planned:
        return lines
    fed = {n.node.name: n.shape for n in found if n.node.is_variable and n.shape}
    between = activation_bytes(symbol.graph, fed)
    if between is not None:
        told = "Activation bytes: {} predicting, {} training"
        lines.insert(0, told.format(*between))
    return [f"Total FLOPs: {sum(layer.flops or 0 for layer in found)}", *lines]


def _rows(layer: Layer) -> list[tuple[str, str, str, str, str]]:
    """One row, and one more for every further input."""
    before = [node.name for node in layer.before] or [""]
    title = f"{layer.node.name}({layer.kind})"
    numbers = ["?" if n is None else str(n) for n in (layer.parameters, layer.flops)]
    first = (title, without_batch(layer.shape), numbers[0], numbers[1], before[0])
    return [first, *(("", "", "", "", name) for name in before[1:])]


def _row(fields: Sequence[str], ends: Sequence[int]) -> str:
    line = ""
    for field, end in zip(fields, ends, strict=True):
        line = (line + field)[:end].ljust(end)
    return line
