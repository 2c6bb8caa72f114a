"""Native rows of recurrent layers and tables against the reference."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import asyncmod.symbol as sym
from runtime.devices.factory import create_device
from tests.conformance.nets import Net, results
from tests.runtime.devices.agreement import check, quick

MODES = ("lstm", "gru", "rnn_tanh", "rnn_relu")


def variables(mode: str) -> list[sym.Symbol]:
    """What a layer reads besides its data."""
    names = ("recurrent", "state", "state_cell")
    return [sym.Variable(name) for name in names[: 2 + (mode == "lstm")]]


def recurrent(
    mode: str, size: int, layers: int, bidirectional: bool, state_outputs: bool
) -> sym.Symbol:
    return sym.RNN(
        sym.Variable("data"),
        *variables(mode),
        state_size=size,
        num_layers=layers,
        mode=mode,
        bidirectional=bidirectional,
        state_outputs=state_outputs,
        name="rnn",
    )


@quick
@given(
    st.sampled_from(MODES),
    st.tuples(st.integers(1, 5), st.integers(1, 17), st.integers(1, 9)),
    st.integers(1, 35),
    st.integers(1, 3),
    st.booleans(),
    st.booleans(),
    st.sampled_from(["write", "add"]),
)
def test_recurrent_layers(
    mode: str,
    shape: tuple[int, int, int],
    size: int,
    layers: int,
    bidirectional: bool,
    state_outputs: bool,
    request: str,
) -> None:
    x = recurrent(mode, size, layers, bidirectional, state_outputs)
    requests = dict.fromkeys(("data", "recurrent", "state"), request)
    check(Net(x, {"data": shape}, requests))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("wanted", ["data", "recurrent", "state"])
def test_only_what_is_wanted_is_computed(mode: str, wanted: str) -> None:
    x = recurrent(mode, 3, 2, bidirectional=True, state_outputs=False)
    others = {*x.list_arguments()} - {wanted}
    check(Net(x, {"data": (4, 2, 3)}, dict.fromkeys(others, "null")))


@pytest.mark.parametrize("mode", MODES)
def test_a_gradient_of_the_last_states_alone(mode: str) -> None:
    x = recurrent(mode, 5, 2, bidirectional=True, state_outputs=True)
    check(Net(x[len(x) - 1], {"data": (4, 2, 3)}))


@pytest.mark.parametrize("mode", MODES)
def test_one_layer_after_another_of_the_same_parameters(mode: str) -> None:
    x, shared = sym.Variable("data"), variables(mode)
    for _ in range(2):
        x = sym.RNN(x, *shared, state_size=3, num_layers=1, mode=mode)
    check(Net(x, {"data": (4, 2, 3)}))


@pytest.mark.parametrize("shape", [(4, 2, 3), (1, 1, 1), (3, 5, 40)])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_dropout_between_layers(
    shape: tuple[int, int, int], bidirectional: bool
) -> None:
    x = sym.RNN(
        sym.Variable("data"),
        *variables("gru"),
        state_size=shape[2],
        num_layers=3,
        mode="gru",
        p=0.4,
        bidirectional=bidirectional,
    )
    check(Net(x, {"data": shape}))


@quick
@given(
    st.integers(1, 9), st.integers(1, 40), st.tuples(*[st.integers(1, 9)] * 2),
    st.sampled_from(["write", "add"]),
)  # fmt: skip
def test_embedding(rows: int, width: int, shape: tuple[int, int], request: str) -> None:
    # Normal numbers around zero: most rows are read more than once, some by numbers
    # outside.
    x = sym.Embedding(
        sym.Variable("data") * 8, input_dim=rows, output_dim=width, name="table"
    )
    check(Net(x, {"data": shape}, {"table_weight": request}), native=False)


@pytest.mark.parametrize("request_", ["write", "add"])
def test_a_table_that_is_the_last_weight_too(request_: str) -> None:
    table = sym.Variable("table")
    x = sym.Embedding(sym.Variable("data"), table, input_dim=6, output_dim=5)
    x = sym.FullyConnected(
        sym.Reshape(x, shape=(-1, 5)), table, num_hidden=6, no_bias=True
    )
    check(Net(x, {"data": (4, 3)}, {"table": request_, "data": "null"}))


WILD = [np.nan, np.inf, -np.inf, 3e38, -3e38, 9.3e18, -1.0, -0.9, 6.0, 5.999, 2.5]


def test_numbers_that_name_no_row() -> None:
    x = sym.Embedding(
        sym.Variable("data"), input_dim=6, output_dim=5, name="table", dtype="float32"
    )
    net = Net(x, {"data": (len(WILD),)}, {"data": "null"})
    found = []
    for kind in ("cpu", "reference"):
        program = net.compile(create_device(kind), True, guards=64)
        net.load(program)
        program.write("input", "data", np.array(WILD, np.float32))
        for section in ("forward", "backward"):
            program.launch(section)  # type: ignore[arg-type]
        found.append(results(program))
    for key, expected in found[1].items():
        np.testing.assert_array_equal(found[0][key], expected, err_msg=key)
