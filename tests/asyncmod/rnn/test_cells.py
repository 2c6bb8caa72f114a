"""Cells: names, states, sharing, unrolling in every form, weights by gate."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import asyncmod as mx
from asyncmod.errors import ArgumentError, ModuleStateError, UnsupportedError
from asyncmod.rnn import (
    BaseRNNCell,
    BidirectionalCell,
    DropoutCell,
    GRUCell,
    LSTMCell,
    ResidualCell,
    RNNCell,
    SequentialRNNCell,
    ZoneoutCell,
)
from asyncmod.symbol import Group, Symbol

Array = np.ndarray[Any, Any]
STEPS, BATCH, SIZE = 3, 2, 4


def stack() -> SequentialRNNCell:
    cell = SequentialRNNCell()
    cell.add(LSTMCell(SIZE, prefix="low_"))
    cell.add(ResidualCell(GRUCell(SIZE, prefix="high_")))
    return cell


CELLS: dict[str, Callable[[], BaseRNNCell]] = {
    "rnn": lambda: RNNCell(SIZE),
    "lstm": lambda: LSTMCell(SIZE),
    "gru": lambda: GRUCell(SIZE),
    "residual": lambda: ResidualCell(RNNCell(SIZE)),
    "stack": stack,
    "bidirectional": lambda: BidirectionalCell(
        RNNCell(SIZE, prefix="l_"), LSTMCell(SIZE, prefix="r_")
    ),
}


def values(net: Symbol, **shapes: tuple[int, ...]) -> dict[str, Array]:
    """Random values by name: the same for the same names."""
    inferred, _, _ = net.infer_shape(**shapes)
    assert inferred is not None
    return {
        name: np.random.default_rng(list(name.encode()))
        .normal(size=shape)
        .astype(np.float32)
        for name, shape in zip(net.list_arguments(), inferred, strict=True)
    }


async def run(net: Symbol, args: dict[str, Array], train: bool = False) -> list[Array]:
    async with (
        mx.open_runtime(),
        mx.bind(net, args, grad_req="null", context=mx.reference()) as executor,
    ):
        return [np.asarray(out) for out in await executor.forward(is_train=train)]


@pytest.mark.parametrize("kind", CELLS)
@pytest.mark.parametrize("layout", ["NTC", "TNC"])
async def test_every_form_of_a_sequence_computes_the_same(
    kind: str, layout: str
) -> None:
    data = np.random.default_rng(0).normal(size=(BATCH, STEPS, SIZE))
    axis = layout.index("T")
    merged = np.moveaxis(data, 1, axis).astype(np.float32)
    apart = {f"x{i}": np.take(merged, i, axis) for i in range(STEPS)}
    cell = CELLS[kind]()

    whole, _ = cell.unroll(STEPS, mx.sym.var("data"), None, layout, merge_outputs=True)
    assert isinstance(whole, Symbol)
    args = values(whole, data=merged.shape) | {"data": merged}
    (expected,) = await run(whole, args)

    steps, _ = cell.unroll(
        STEPS, [mx.sym.var(name) for name in apart], None, layout, merge_outputs=False
    )
    shapes = {name: array.shape for name, array in apart.items()}
    group = Group(list(steps))
    outputs = await run(group, values(group, **shapes) | apart)
    assert len(outputs) == STEPS
    np.testing.assert_allclose(np.stack(outputs, axis), expected, rtol=1e-6, atol=1e-6)


def test_names() -> None:
    cell = LSTMCell(SIZE)
    outputs, states = cell.unroll(2, [mx.sym.var("a"), mx.sym.var("b")])
    assert [out.name for out in outputs] == ["lstm_t0_out", "lstm_t1_out"]
    assert [state.name for state in states] == ["lstm_t1_out", "lstm_t1_state"]
    parameters = ["i2h_weight", "i2h_bias", "h2h_weight", "h2h_bias"]
    assert Group(list(outputs)).list_arguments() == [
        "a",
        *(f"lstm_{name}" for name in parameters),
        "b",
    ]
    again, _ = cell.unroll(1, [mx.sym.var("a")])
    assert again[0].name == "lstm_t0_out"


def test_begin_states() -> None:
    cell = stack()
    assert cell.state_shape == [(0, SIZE)] * 3
    zeros = cell.begin_state()
    assert [state.name for state in zeros] == [
        "low_begin_state_0",
        "low_begin_state_1",
        "high_begin_state_0",
    ]
    fed = GRUCell(SIZE, prefix="g_").begin_state(mx.sym.Variable, lr_mult=0.0)
    assert fed[0].list_arguments() == ["g_begin_state_0"]
    assert fed[0].attr("__layout__") == "NC"
    assert fed[0].attr("lr_mult") == "0.0"


def test_states_that_are_fed_carry_on() -> None:
    cell = BidirectionalCell(RNNCell(3, prefix="l_"), LSTMCell(3, prefix="r_"))
    inputs = [mx.sym.var("a"), mx.sym.var("b")]
    _, states = cell.unroll(2, inputs)
    assert [state.name for state in states] == ["l_t1_out", "r_t1_out", "r_t1_state"]
    cell.unroll(2, inputs, begin_state=states)
    with pytest.raises(ArgumentError, match="2 states were given"):
        cell.unroll(2, inputs, begin_state=states[:2])


def test_shared_parameters() -> None:
    first = RNNCell(SIZE)
    second = RNNCell(SIZE, params=first.params)
    x = mx.sym.var("x")
    both = Group([first(x, first.begin_state())[0], second(x, first.begin_state())[0]])
    assert len(both.list_arguments()) == 1 + 4
    whole = SequentialRNNCell(params=mx.rnn.RNNParams("all_"))
    with pytest.raises(ArgumentError, match="not to both"):
        whole.add(second)


def test_wrong_sequences() -> None:
    cell = RNNCell(SIZE)
    with pytest.raises(ArgumentError, match="2 steps, but is to be unrolled over 3"):
        cell.unroll(3, [mx.sym.var("a"), mx.sym.var("b")])
    with pytest.raises(ArgumentError, match="'NTC' or 'TNC'"):
        cell.unroll(3, mx.sym.var("a"), layout="NC")
    with pytest.raises(ArgumentError, match="group of 2"):
        cell.unroll(3, Group([mx.sym.var("a"), mx.sym.var("b")]))
    with pytest.raises(UnsupportedError, match="unroll"):
        CELLS["bidirectional"]()(mx.sym.var("a"), [])


def test_a_wrapped_cell_makes_no_states() -> None:
    for base in (RNNCell(SIZE), stack()):
        outer = ResidualCell(base)
        with pytest.raises(ModuleStateError, match="modifier"):
            base.begin_state()
        assert outer.begin_state()
    with pytest.raises(ArgumentError, match="zoneout"):
        ZoneoutCell(CELLS["bidirectional"]())


@pytest.mark.parametrize("kind", CELLS)
def test_weights_by_gate_and_back(kind: str) -> None:
    cell = CELLS[kind]()
    net, _ = cell.unroll(1, mx.sym.var("data"), merge_outputs=True)
    assert isinstance(net, Symbol)
    args = values(net, data=(BATCH, 1, SIZE))
    pieces = cell.unpack_weights(args)
    packed = cell.pack_weights(pieces)
    assert packed.keys() == args.keys()
    for name, array in args.items():
        np.testing.assert_array_equal(packed[name], array)


def test_names_of_gates() -> None:
    args = {
        f"lstm_{group}_{kind}": np.arange(4 * width, dtype=np.float32).reshape(4, -1)
        for group in ("i2h", "h2h")
        for kind, width in (("weight", 3), ("bias", 1))
    }
    pieces = LSTMCell(1).unpack_weights(args | {"other": np.zeros(2)})
    assert pieces.keys() == {
        "other",
        *(
            f"lstm_{group}_{gate}_{kind}"
            for group in ("i2h", "h2h")
            for gate in "ifco"
            for kind in ("weight", "bias")
        ),
    }
    np.testing.assert_array_equal(pieces["lstm_i2h_f_weight"], [[3, 4, 5]])
    assert len(GRUCell(1).unpack_weights({**_renamed(args)})) == 12
    del pieces["lstm_h2h_o_bias"]
    with pytest.raises(ArgumentError, match="`lstm_h2h_o_bias` is missing"):
        LSTMCell(1).pack_weights(pieces)


def _renamed(args: dict[str, Array]) -> dict[str, Array]:
    return {name.replace("lstm", "gru"): array[:3] for name, array in args.items()}


async def test_dropout_is_for_training() -> None:
    data = np.ones((8, STEPS, 16), np.float32)
    cell = DropoutCell(0.5)
    for merged in (True, False, None):
        outputs, states = cell.unroll(STEPS, mx.sym.var("data"), merge_outputs=merged)
        assert states == []
        net = outputs if isinstance(outputs, Symbol) else Group(list(outputs))
        assert isinstance(outputs, Symbol) == (merged is not False)
        for out in await run(net, {"data": data}):
            np.testing.assert_array_equal(out, 1)
        for out in await run(net, {"data": data}, train=True):
            assert set(np.unique(out)) == {0, 2}


async def test_zoneout_keeps_values_of_the_step_before() -> None:
    cell = ZoneoutCell(RNNCell(64), zoneout_outputs=0.5)
    plain = RNNCell(64)
    data = np.random.default_rng(0).normal(size=(BATCH, STEPS, SIZE))
    nets = []
    for each in (cell, plain):
        outputs, _ = each.unroll(STEPS, mx.sym.var("data"), merge_outputs=True)
        assert isinstance(outputs, Symbol)
        nets.append(outputs)
    args = values(nets[1], data=data.shape) | {"data": data.astype(np.float32)}
    (expected,) = await run(nets[1], args)
    (quiet,) = await run(nets[0], args)
    np.testing.assert_array_equal(quiet, expected)
    (kept,) = await run(nets[0], args, train=True)
    before = np.zeros_like(kept[:, 0])
    for step in range(STEPS):
        old = kept[:, step] == before
        new = kept[:, step] == expected[:, step]
        assert (old | new).all()
        assert 0.25 < old.mean() < 0.75
        before = kept[:, step]


async def test_zoneout_of_states() -> None:
    cell = ZoneoutCell(RNNCell(64), zoneout_states=0.5)
    x = mx.sym.var("x")
    output, (state,) = cell(x, [mx.sym.var("h")])
    net = Group([output, state])
    args = values(net, x=(BATCH, SIZE), h=(BATCH, 64))
    out, kept = await run(net, args, train=True)
    old = kept == args["h"]
    assert (old | (kept == out)).all()
    assert 0.25 < old.mean() < 0.75


async def test_both_directions_of_time() -> None:
    """The backward half is the same cell's output on the reversed sequence."""
    cell = BidirectionalCell(RNNCell(3, prefix="l_"), RNNCell(3, prefix="r_"))
    both, _ = cell.unroll(STEPS, mx.sym.var("data"), merge_outputs=True)
    assert isinstance(both, Symbol)
    assert both.name == "bi_out"
    args = values(both, data=(BATCH, STEPS, SIZE))
    (out,) = await run(both, args)
    for prefix, half, order in (("l_", out[..., :3], 1), ("r_", out[..., 3:], -1)):
        one, _ = RNNCell(3, prefix=prefix).unroll(
            STEPS, mx.sym.var("data"), merge_outputs=True
        )
        assert isinstance(one, Symbol)
        own = {name: args[name] for name in one.list_arguments()}
        (expected,) = await run(one, own | {"data": args["data"][:, ::order]})
        np.testing.assert_allclose(half, expected[:, ::order], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("kind", ["RNN", "LSTM", "GRU"])
async def test_a_convolutional_cell_learns(kind: str) -> None:
    """The last of three images is the first one, moved by one pixel."""
    images = np.random.default_rng(0).normal(size=(16, 3, 1, 6, 6)).astype(np.float32)
    target = np.roll(images[:, 0], 1, axis=-1)
    cell = getattr(mx.rnn, f"Conv{kind}Cell")((0, 1, 6, 6), 4, activation="tanh")
    steps = mx.sym.SliceChannel(
        mx.sym.Variable("data"), num_outputs=3, axis=1, squeeze_axis=True
    )
    outputs, _ = cell.unroll(3, [steps[i] for i in range(3)])
    net = mx.sym.Convolution(outputs[-1], kernel=(1, 1), num_filter=1, name="last")
    net = mx.sym.LinearRegressionOutput(net, name="loss")
    data = mx.io.NDArrayIter(images, target, 8, label_name="loss_label")
    async with mx.Module(net, label_names=["loss_label"]) as mod:
        history = await mod.fit(
            data,
            num_epoch=15,
            eval_metric="mse",
            optimizer="adam",
            optimizer_params={"learning_rate": 0.02},
            initializer=mx.init.Xavier(),
        )
        arguments, _ = await mod.get_params()
    losses = [row["train-mse"] for row in history.epochs]
    assert losses[-1] < 0.9 * losses[0]
    again = cell.pack_weights(cell.unpack_weights(arguments))
    assert all((again[name] == value).all() for name, value in arguments.items())


def test_a_convolution_that_would_change_the_size_of_states() -> None:
    with pytest.raises(
        mx.errors.ArgumentError, match=r"h2h_kernel.*\(=\(2, 3\)\).*odd"
    ):
        mx.rnn.ConvRNNCell((0, 1, 6, 6), 4, h2h_kernel=(2, 3))
