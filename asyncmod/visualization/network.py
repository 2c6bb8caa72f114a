"""plot_network: a net as a drawing, in DOT, the language of Graphviz."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from asyncmod.errors import UnsupportedError
from asyncmod.symbol import Symbol
from asyncmod.visualization.layers import Layer, Shapes, layers, without_batch

_NODE = {
    "shape": "box",
    "fixedsize": "true",
    "width": "1.3",
    "height": "0.8034",
    "style": "filled",
}
_PLAIN, _FED = "#fccde5", "#8dd3c7"
_COLORS = {
    "FullyConnected": "#fb8072",
    "Convolution": "#fb8072",
    "Deconvolution": "#fb8072",
    "BatchNorm": "#bebada",
    "Activation": "#ffffb3",
    "LeakyReLU": "#ffffb3",
    "Pooling": "#80b1d3",
    "Concat": "#fdb462",
    "Flatten": "#fdb462",
    "Reshape": "#fdb462",
    "Softmax": "#b3de69",
    "SoftmaxOutput": "#b3de69",
}
# The attributes that tell layers of one kind apart.
_TOLD = {
    "FullyConnected": ("num_hidden",),
    "Convolution": ("kernel", "stride", "num_filter"),
    "Deconvolution": ("kernel", "stride", "num_filter"),
    "Activation": ("act_type",),
    "LeakyReLU": ("act_type",),
    "Pooling": ("pool_type", "kernel", "stride"),
}


@dataclass(frozen=True)
class Drawing:
    """A drawing of a net; `str(drawing)` and `source` are its DOT text.

    Attributes:
        title: Its name, and that of rendered files.
        source: DOT text, which any Graphviz tool draws.
        save_format: What `render` makes.
    """

    title: str
    source: str
    save_format: str = "pdf"

    def __str__(self) -> str:
        return self.source

    def save(self, filename: str | os.PathLike[str] | None = None) -> Path:
        """Write the DOT text, to `<title>.gv` unless told otherwise."""
        path = Path(filename or f"{self.title}.gv")
        path.write_text(self.source, "utf-8")
        return path

    def render(self, filename: str | os.PathLike[str] | None = None) -> Path:
        """Draw it into `<filename>.<save_format>`, with the package graphviz.

        Raises:
            UnsupportedError: the package is not installed.
        """
        try:
            graphviz = import_module("graphviz")
        except ImportError:
            raise UnsupportedError(
                "drawing needs the Python package graphviz, which is not installed: "
                "pip install 'asyncmod[graphviz]'; save() writes the DOT text for "
                "other tools: dot -Tpdf -O plot.gv"
            ) from None
        name = os.fspath(filename or self.title)
        drawn = graphviz.Source(self.source).render(
            outfile=f"{name}.{self.save_format}", cleanup=True
        )
        return Path(drawn)


def plot_network(
    symbol: Symbol,
    title: str = "plot",
    save_format: str = "pdf",
    shape: Shapes | None = None,
    dtype: object = None,
    node_attrs: Mapping[str, str] | None = None,
    hide_weights: bool = True,
) -> Drawing:
    """Draw a net from its inputs, below, to its outputs.

    Args:
        symbol: The net.
        title: The drawing's name.
        save_format: What `render` of the result makes.
        shape: Shapes of the inputs, with the batch; if given, every edge says which
            shape flows along it, without the batch.
        dtype: No effect; drawings do not show dtypes.
        node_attrs: Graphviz attributes of all nodes, such as `{"shape": "oval"}`.
        hide_weights: Leave out the parameters and states that a layer keeps.

    Returns:
        The DOT text, which the package graphviz draws if it is installed.

    Raises:
        ArgumentTypeError: `symbol` is not a symbol.
        ArgumentError: `shape` does not suffice.
        ShapeError: the shapes contradict each other.
    """
    common = _NODE | dict(node_attrs or {})
    found = layers(symbol, shape, hide_weights)
    numbers = {layer.node: f"n{number}" for number, layer in enumerate(found)}
    shapes = {layer.node: layer.shape for layer in found}
    lines = [f"digraph {_quoted(title)} {{", f"    node [{_attributes(common)}]"]
    for layer in found:
        look = {"label": _label(layer), "fillcolor": _color(layer)}
        if layer.node.is_variable:
            look["shape"] = "oval"
        lines.append(f"    {numbers[layer.node]} [{_attributes(look)}]")
    for layer in found:
        for before in layer.before:
            edge = {"dir": "back", "arrowtail": "open"}
            if shape is not None:
                edge["label"] = without_batch(shapes[before])
            ends = f"{numbers[layer.node]} -> {numbers[before]}"
            lines.append(f"    {ends} [{_attributes(edge)}]")
    return Drawing(title, "\n".join([*lines, "}", ""]), save_format)


def _label(layer: Layer) -> str:
    if layer.node.is_variable:
        return layer.node.name
    told = _TOLD.get(layer.kind, ())
    texts = (_told(getattr(layer.node.attributes, name)) for name in told)
    return "\n".join([layer.node.name, layer.kind, ", ".join(t for t in texts if t)])


def _told(value: Any) -> str:
    return "x".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _color(layer: Layer) -> str:
    return _FED if layer.node.is_variable else _COLORS.get(layer.kind, _PLAIN)


def _attributes(values: Mapping[str, str]) -> str:
    return ", ".join(f"{name}={_quoted(value)}" for name, value in values.items())


def _quoted(text: str) -> str:
    """A DOT string; its escapes for quotes and line ends are those of JSON."""
    return json.dumps(text, ensure_ascii=False)
