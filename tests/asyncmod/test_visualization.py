"""mx.viz: tables and drawings of nets."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace

import pytest

import asyncmod as mx
from asyncmod.errors import ArgumentError, ArgumentTypeError, UnsupportedError
from asyncmod.symbol import Symbol


def convnet() -> Symbol:
    """Convolution and batch norm, their sum, and a dense layer."""
    sym = mx.sym
    first = sym.Convolution(
        sym.Variable("data"), kernel=(3, 3), num_filter=8, name="conv"
    )
    norm = sym.BatchNorm(first, name="bn")
    net = sym.elemwise_add(norm, first, name="sum")
    net = sym.FullyConnected(net, num_hidden=5, name="fc")
    return sym.SoftmaxOutput(net, name="softmax")


SHAPE = {"data": (4, 3, 6, 6)}
COLUMNS = (20, 34, 44, 60)


def table(
    capsys: pytest.CaptureFixture[str],
    net: Symbol,
    shape: Mapping[str, tuple[int, ...]] | None = None,
) -> list[list[str]]:
    """The cells of the table's rows."""
    mx.viz.print_summary(net, shape, line_length=60, positions=COLUMNS)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == lines[-1] == "_" * 60
    rows = [line for line in lines[1:-2] if set(line) not in ({"_"}, {"="})]
    assert {len(row) for row in rows} == {60}
    ends = (0, *COLUMNS)
    cells = [
        [row[a:b].strip() for a, b in zip(ends, COLUMNS, strict=False)] for row in rows
    ]
    return [*cells, [lines[-2]]]


def test_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert table(capsys, convnet(), SHAPE) == [
        ["Layer (type)", "Output Shape", "Param #", "Previous Layer"],
        ["data(null)", "3x6x6", "0", ""],
        ["conv(Convolution)", "8x4x4", str(8 * 3 * 9 + 8), "data"],
        ["bn(BatchNorm)", "8x4x4", str(2 * 8), "conv"],
        ["sum(elemwise_add)", "8x4x4", "0", "bn"],
        ["", "", "", "conv"],
        ["fc(FullyConnected)", "5", str((8 * 4 * 4 + 1) * 5), "sum"],
        ["softmax_label(null)", "", "0", ""],
        ["softmax(SoftmaxOutpu", "5", "0", "fc"],
        ["", "", "", "softmax_label"],
        [f"Total params: {224 + 16 + 645}"],
    ]


def test_table_as_mxnet_sets_it(capsys: pytest.CaptureFixture[str]) -> None:
    net = mx.sym.FullyConnected(mx.sym.Variable("data"), num_hidden=5, name="fc")
    mx.viz.print_summary(net, {"data": (2, 3)})

    def row(*cells: str) -> str:
        widths = (52, 24, 12, 32)  # of 120: up to 0.44, 0.64, 0.74 and 1
        return "".join(c.ljust(w) for c, w in zip(cells, widths, strict=True))

    assert capsys.readouterr().out.splitlines() == [
        "_" * 120,
        row("Layer (type)", "Output Shape", "Param #", "Previous Layer"),
        "=" * 120,
        row("data(null)", "3", "0", ""),
        "_" * 120,
        row("fc(FullyConnected)", "5", "20", "data"),
        "=" * 120,
        "Total params: 20",
        "_" * 120,
    ]


def test_table_without_shapes(capsys: pytest.CaptureFixture[str]) -> None:
    rows = table(capsys, convnet())
    assert rows[2] == ["conv(Convolution)", "", "?", "data"]
    assert rows[-1] == ["Total params: 0"]


def test_shared_weights_count_once(capsys: pytest.CaptureFixture[str]) -> None:
    cell = mx.rnn.RNNCell(4)
    net, _ = cell.unroll(3, mx.sym.Variable("data"), merge_outputs=True)
    assert isinstance(net, Symbol)
    rows = table(capsys, net, {"data": (2, 3, 5)})
    assert rows[-1] == [f"Total params: {(5 + 1) * 4 + (4 + 1) * 4}"]


def test_wrong_input() -> None:
    with pytest.raises(ArgumentError, match="Input shape is incomplete"):
        mx.viz.print_summary(convnet(), {})
    with pytest.raises(ArgumentError, match="4 columns"):
        mx.viz.print_summary(convnet(), positions=(0.5, 1.0))
    for function in (mx.viz.print_summary, mx.viz.plot_network):
        with pytest.raises(ArgumentTypeError, match="must be a Symbol"):
            function("net")  # type: ignore[arg-type]


def test_drawing() -> None:
    net = mx.sym.FullyConnected(mx.sym.Variable("data"), num_hidden=5, name="fc")
    drawing = mx.viz.plot_network(
        net, 'my "net"', shape={"data": (2, 3)}, node_attrs={"width": "2"}
    )
    assert str(drawing) == drawing.source
    assert drawing.source.splitlines() == [
        'digraph "my \\"net\\"" {',
        '    node [shape="box", fixedsize="true", width="2", height="0.8034", '
        'style="filled"]',
        '    n0 [label="data", fillcolor="#8dd3c7", shape="oval"]',
        '    n1 [label="fc\\nFullyConnected\\n5", fillcolor="#fb8072"]',
        '    n1 -> n0 [dir="back", arrowtail="open", label="3"]',
        "}",
    ]


def test_drawing_with_weights() -> None:
    names = ["conv_weight", "conv_bias", "bn_gamma", "bn_moving_var", "fc_weight"]
    plain = mx.viz.plot_network(convnet()).source
    full = mx.viz.plot_network(convnet(), hide_weights=False).source
    for name in names:
        assert f'label="{name}"' not in plain
        assert f'label="{name}"' in full
    assert 'label="conv\\nConvolution\\n3x3, 8"' in plain
    assert plain.count("->") == 7


def test_drawing_into_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawing = mx.viz.plot_network(convnet(), save_format="svg")
    assert drawing.save(tmp_path / "net.gv").read_text("utf-8") == drawing.source

    class Source:
        def __init__(self, source: str) -> None:
            assert source == drawing.source

        def render(self, outfile: str, cleanup: bool) -> str:
            return outfile

    monkeypatch.setitem(sys.modules, "graphviz", SimpleNamespace(Source=Source))
    assert drawing.render(tmp_path / "net") == tmp_path / "net.svg"
    monkeypatch.setitem(sys.modules, "graphviz", None)
    with pytest.raises(UnsupportedError, match=r"save\(\) writes the DOT text"):
        drawing.render()
