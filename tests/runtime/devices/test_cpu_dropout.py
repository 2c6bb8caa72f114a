"""Native dropout: the bits of the definition, whatever is asked of it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import asyncmod.symbol as sym
from runtime.devices.contract import FIRST_PREDICTION, StepKey
from runtime.devices.factory import create_device
from runtime.graph.plan import NativeRow
from tests.conformance.nets import Net, results
from tests.runtime.devices.agreement import check, quick

KEYS = [
    StepKey(),
    StepKey(seed=-1, step=7, row=3),
    StepKey(seed=2**63 + 5, step=2**32 - 1, row=2**20),
    StepKey(seed=12345678901234567890123, step=FIRST_PREDICTION + 3, row=0),
]


def two_of_them(p: float = 0.3, **options: object) -> sym.Symbol:
    x = sym.Dropout(sym.Variable("data"), p=p, name="first", **options)
    return sym.Dropout(x, p=p, name="second", **options)


def same_bits(net: Net, is_train: bool, key: StepKey) -> None:
    found = []
    for kind in ("cpu", "reference"):
        program = net.compile(create_device(kind), is_train, guards=64)
        net.load(program)
        sections = ("forward", "backward") if is_train else ("predict",)
        for section in sections:
            program.launch(section, 0, key)  # type: ignore[arg-type]
        found.append(results(program))
        rows = [row for s in program.plan.sections.values() for row in s]
        assert kind != "cpu" or all(isinstance(row, NativeRow) for row in rows)
    assert found[0].keys() == found[1].keys()
    for name, expected in found[1].items():
        np.testing.assert_array_equal(found[0][name], expected, err_msg=name)


@quick
@given(
    st.lists(st.integers(1, 13), min_size=1, max_size=4).map(tuple),
    st.sampled_from([0.0, 0.1, 0.5, 0.97]),
    st.sampled_from(["training", "always"]),
    st.booleans(),
    st.sampled_from(KEYS),
)
def test_dropout(
    shape: tuple[int, ...], p: float, mode: str, is_train: bool, key: StepKey
) -> None:
    same_bits(Net(two_of_them(p, mode=mode), {"data": shape}), is_train, key)


@pytest.mark.parametrize("width", [1, 3, 63, 64, 65, 129, 1000])
def test_long_rows(width: int) -> None:
    same_bits(Net(two_of_them(), {"data": (3, width)}), True, KEYS[1])


def test_a_whole_step_has_the_numbers_of_its_key() -> None:
    net = Net(two_of_them(), {"data": (5, 6)})
    program = net.compile(create_device("cpu"), True)
    net.load(program)
    outputs = []
    for key in (KEYS[1], KEYS[2], KEYS[1]):
        program.launch("step", 0, key)
        outputs.append(results(program))
    for name, value in outputs[0].items():
        np.testing.assert_array_equal(outputs[2][name], value)
        assert (outputs[1][name] != value).any()


def test_not_a_number_stays_so() -> None:
    net = Net(two_of_them(), {"data": (4, 8)})
    program = net.compile(create_device("cpu"), True)
    net.load(program)
    program.write("input", "data", np.full((4, 8), np.nan, np.float32))
    program.launch("forward")
    assert np.isnan(program.read("output", "second_output")).all()


def test_shared_draws_are_left_to_the_definition() -> None:
    check(Net(two_of_them(axes=(1,)), {"data": (4, 5, 3)}), native=False)


def test_between_images() -> None:
    x = sym.Convolution(
        sym.Variable("data"), num_filter=3, kernel=(3, 3), pad=(1, 1), name="one"
    )
    x = sym.Dropout(x, p=0.4)
    x = sym.Convolution(x, num_filter=2, kernel=(3, 3), pad=(1, 1), name="two")
    net = Net(x, {"data": (2, 3, 6, 5)})
    check(net)
    found = []
    for kind in ("cpu", "reference"):
        program = net.compile(create_device(kind), False, guards=64)
        net.load(program)
        program.launch("predict")
        found.append(program.read("output", "two_output"))
    np.testing.assert_allclose(*found, rtol=1e-4, atol=1e-5)
