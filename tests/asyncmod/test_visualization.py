"""mx.viz: tables and drawings of nets."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import asyncmod as mx
from asyncmod.errors import ArgumentError, ArgumentTypeError, UnsupportedError
from asyncmod.symbol import Symbol
from asyncmod.visualization import cost
from runtime.graph import registry


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
    lines = lines[lines.index("_" * 60) :]  # a warning of no kernels may come first
    assert lines[-1] == "_" * 60
    rows = [line for line in lines[1:-1] if set(line) not in ({"_"}, {"="})]
    ends = (0, *COLUMNS)
    return [
        [row[a:b].strip() for a, b in zip(ends, COLUMNS, strict=False)]
        if len(row) == 60
        else [row]
        for row in rows
        if not row.startswith("Activation bytes")
    ]


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
        ["Total FLOPs: 34344"],
        [f"Total params: {224 + 16 + 645}"],
    ]


def test_table_with_flops(capsys: pytest.CaptureFixture[str]) -> None:
    mx.viz.print_summary(convnet(), SHAPE, 70, (20, 30, 38, 46, 70))
    lines = [line for line in capsys.readouterr().out.splitlines() if "(" in line]
    assert {line[:20].split("(")[0]: line[38:46].strip() for line in lines} == {
        "Layer ": "FLOPs",
        "data": "0",
        "conv": str(2 * (4 * 8 * 4 * 4) * (3 * 3 * 3) + 4 * 8 * 4 * 4),
        "bn": str(4 * 8 * 4 * 4),
        "sum": str(4 * 8 * 4 * 4),
        "fc": str(2 * 4 * 128 * 5 + 4 * 5),
        "softmax_label": "0",
        "softmax": str(4 * 5),
    }


@pytest.mark.parametrize(
    ("make", "shape", "expected"),
    [
        (
            lambda s, x: s.Deconvolution(x, kernel=(2, 2), num_filter=5, num_group=1),
            (2, 3, 4, 4),
            2 * (2 * 3 * 4 * 4) * (5 * 2 * 2),
        ),
        (
            lambda s, x: s.Convolution(
                x, kernel=(3, 3), num_filter=4, num_group=2, no_bias=True
            ),
            (1, 2, 5, 5),
            2 * (4 * 3 * 3) * 9,
        ),
        (
            lambda s, x: s.Pooling(x, kernel=(2, 2), stride=(2, 2), pool_type="max"),
            (1, 3, 4, 4),
            12 * 4,
        ),
        (
            lambda s, x: s.Pooling(x, global_pool=True, kernel=(1, 1), pool_type="avg"),
            (1, 3, 4, 4),
            48,
        ),
        (lambda s, x: s.dot(x, s.Variable("b", shape=(3, 7))), (5, 3), 2 * 35 * 3),
        (
            lambda s, x: s.dot(x, s.Variable("b", shape=(3, 7)), transpose_a=True),
            (3, 5),
            2 * 35 * 3,
        ),
        (
            lambda s, x: s.batch_dot(x, s.Variable("b", shape=(2, 3, 7))),
            (2, 5, 3),
            2 * 2 * 35 * 3,
        ),
        (
            lambda s, x: s.RNN(x, state_size=4, num_layers=1, mode="rnn_tanh"),
            (6, 2, 3),
            2 * 6 * 2 * (4 * 3 + 4 * 4 + 8),
        ),
        (lambda s, x: s.sum(x), (4, 5), 20),
        (lambda s, x: s.Reshape(s.transpose(x), shape=(-1,)), (4, 5), 0),
        (lambda s, x: s.Embedding(x, input_dim=9, output_dim=4), (4, 5), 0),
        (lambda s, x: s.tanh(x), (4, 5), 20),
    ],
)
def test_flops(
    make: Any, shape: tuple[int, ...], expected: int, capsys: pytest.CaptureFixture[str]
) -> None:
    mx.viz.print_summary(make(mx.sym, mx.sym.Variable("x")), {"x": shape})
    assert f"Total FLOPs: {expected}\n" in capsys.readouterr().out


def test_rules_name_operators_that_there_are() -> None:
    for name in (*cost._MOVES, *cost._RULES):
        assert registry.get(name).name == name


async def test_activation_bytes_are_those_of_a_module(
    capsys: pytest.CaptureFixture[str],
) -> None:
    mx.viz.print_summary(convnet(), SHAPE)
    printed = capsys.readouterr().out
    async with mx.Module(convnet(), context=mx.cpu()) as module:
        await module.bind([("data", SHAPE["data"])], [("softmax_label", (4,))])
        await module.init_params()
        await module.predict(np.zeros(SHAPE["data"], np.float32))
        [replica] = module.core.need_executors("bind").first.group._replicas
        segments = [p.plan.segments for p in (replica.inference, replica.training) if p]
    planned = [size.get("arena", 0) + size.get("halo", 0) for size in segments]
    told = "Activation bytes: {} predicting, {} training\n".format(*planned)
    assert told in printed


def test_nets_that_cannot_be_bound_have_no_activation_bytes(
    capsys: pytest.CaptureFixture[str],
) -> None:
    net = mx.sym.tanh(mx.sym.tanh(mx.sym.Variable("x"), name="twice"), name="twice")
    mx.viz.print_summary(net, {"x": (2, 3)})
    printed = capsys.readouterr().out
    assert "Total FLOPs: 12\n" in printed
    assert "Activation bytes" not in printed


def test_table_as_mxnet_sets_it(capsys: pytest.CaptureFixture[str]) -> None:
    net = mx.sym.FullyConnected(mx.sym.Variable("data"), num_hidden=5, name="fc")
    mx.viz.print_summary(net, {"data": (2, 3)}, positions=(0.44, 0.64, 0.74, 1.0))

    def row(*cells: str) -> str:
        widths = (52, 24, 12, 32)  # of 120: up to 0.44, 0.64, 0.74 and 1
        return "".join(c.ljust(w) for c, w in zip(cells, widths, strict=True))

    lines = capsys.readouterr().out.splitlines()
    assert lines.pop(8).startswith("Activation bytes: 0 predicting, ")
    assert lines == [
        "_" * 120,
        row("Layer (type)", "Output Shape", "Param #", "Previous Layer"),
        "=" * 120,
        row("data(null)", "3", "0", ""),
        "_" * 120,
        row("fc(FullyConnected)", "5", "20", "data"),
        "=" * 120,
        f"Total FLOPs: {2 * 2 * 3 * 5 + 2 * 5}",
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
    with pytest.raises(ArgumentError, match="5 columns, or 4 without FLOPs"):
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
