"""Plans as bytes and back."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import asyncmod as mx
from runtime.devices.factory import create_device
from runtime.graph.compile import Request, compile_plan
from runtime.graph.plan import Address, Layout, NativeRow, Plan, Span, spans
from runtime.graph.update import plan_update
from runtime.transport.plans import PlanError, decode, encode
from tests.conformance.nets import NETS
from tests.runtime.transport.golden_plans import NAMES, plans

FEW = Plan({"input": 64}, {}, {})


@pytest.mark.parametrize("name", NAMES)
def test_every_golden_net_comes_back_as_it_was(name: str) -> None:
    for plan in plans(name):
        again = decode(encode(plan))
        assert again == plan
        assert encode(again) == encode(plan)


@pytest.mark.parametrize("kind", ["cpu", "reference"])
@pytest.mark.parametrize("name", ["mlp", "lenet", "resnet"])
def test_training_plans_with_sums(kind: str, name: str) -> None:
    net = NETS[name]()
    net.gradients = {"data": "add"}
    plan = net.compile(create_device(kind), True).plan
    assert plan.accumulated
    assert decode(encode(plan)) == plan


@pytest.mark.parametrize("kind", ["cpu", "reference"])
def test_updates(kind: str) -> None:
    layout = Layout.pack(
        "parameter", [("w", (3, 5), "float32"), ("b", (3,), "float16")]
    )
    plan = plan_update(
        "sgd",
        layout,
        ["w", "b"],
        states=["momentum"],
        hyper=5,
        devices=2,
        native=create_device(kind).native,
    )
    assert decode(encode(plan)) == plan


NUMBERS = st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False)
PLACES = st.builds(Address, st.text(), st.integers(0, 2**40))
ROWS = st.builds(
    NativeRow,
    st.text(),
    st.text(),
    st.dictionaries(
        st.text(), PLACES | st.lists(PLACES).map(tuple) | NUMBERS, max_size=4
    ),
    st.lists(st.builds(Span, st.text(), NUMBERS, NUMBERS)).map(tuple),
    st.just(()),
    st.floats(allow_nan=False),
)


@given(st.lists(ROWS, max_size=5).map(tuple))
def test_any_row_comes_back_as_it_was(rows: tuple[NativeRow, ...]) -> None:
    plan = replace(FEW, sections={"forward": rows})
    again = decode(encode(plan))
    assert again == plan
    for row, same in zip(rows, again.sections.get("forward", ()), strict=True):
        assert [type(v) for v in same.operands.values()] == [
            type(v) for v in row.operands.values()
        ]


def test_numpy_integers_become_integers() -> None:
    plan = replace(FEW, segments={"input": np.int64(64)})
    assert type(decode(encode(plan)).segments["input"]) is int


@pytest.mark.parametrize("value", [object(), 1j, {1, 2}, np.zeros(2)])
def test_what_a_plan_cannot_hold(value: Any) -> None:
    with pytest.raises(PlanError, match="cannot hold"):
        encode(replace(FEW, segments={"input": value}))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xc0",
        encode(FEW)[:-1],
        encode(FEW) + b"\x00",
        msgpack.packb(msgpack.ExtType(99, b"\x90")),
        msgpack.packb(msgpack.ExtType(0, b"\x90")),
        b"\xdd\xff\xff\xff\xff",
        encode(FEW)[:20] + b"\xc1" * 9,
    ],
)
def test_what_is_no_plan(data: bytes) -> None:
    with pytest.raises(PlanError, match="no"):
        decode(data)


def test_sparse_plans() -> None:
    """CSR inputs, row-sparse gradients that are added up, and their update."""
    x, w = mx.sym.Variable("x"), mx.sym.Variable("w", shape=(5, 2))
    plan = compile_plan(
        Request(
            mx.sym.MakeLoss(mx.sym.dot(x, w)).graph,
            ("x",),
            {"x": (3, 5)},
            gradients={"w": "add"},
            is_train=True,
            csr=frozenset({"x"}),
        )
    )
    assert {span.segment for span in spans(plan.accumulated)} == {
        "gradient_rows",
        "gradient_values",
    }
    update = plan_update(
        "sgd",
        Layout(plan.tensors["parameter"], plan.segments["parameter"]),
        ["w"],
        hyper=5,
        gradient_rows=Layout(
            plan.tensors["gradient_rows"], plan.segments["gradient_rows"]
        ),
        lazy=True,
    )
    for made in (plan, update):
        assert decode(encode(made)) == made
