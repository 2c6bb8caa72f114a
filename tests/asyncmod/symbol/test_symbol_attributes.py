from __future__ import annotations

import numpy as np
import pytest

import asyncmod.symbol as sym
from asyncmod.errors import ArgumentError, ArgumentTypeError
from runtime.errors import OperatorError


class Constant:
    def dumps(self) -> str:
        return '["constant", {"value": 2}]'


def test_variable_holds_everything_as_text() -> None:
    x = sym.Variable(
        "x",
        attr={"__mood__": "calm"},
        shape=(3, 4),
        lr_mult=0.5,
        wd_mult=2,
        dtype=np.float16,
        init=Constant(),
        stype="row_sparse",
        __extra__=7,
    )
    assert x.list_attr() == {
        "__mood__": "calm",
        "__shape__": "(3, 4)",
        "__lr_mult__": "0.5",
        "lr_mult": "0.5",
        "__wd_mult__": "2",
        "wd_mult": "2",
        "__dtype__": "2",
        "__init__": '["constant", {"value": 2}]',
        "__storage_type__": "1",
        "__extra__": "7",
    }


def test_attributes_are_found_by_both_names() -> None:
    x = sym.var("x", lr_mult=2)
    assert x.attr("lr_mult") == x.attr("__lr_mult__") == "2"
    assert x.attr("wd_mult") is None


def test_initializer_may_be_text() -> None:
    assert sym.var("x", init='["one", {}]').attr("__init__") == '["one", {}]'


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"foo": 1}, ArgumentError, "Attribute name=foo .* is not supported"),
        ({"dtype": "complex64"}, ArgumentError, "cannot have dtype complex64"),
        ({"stype": "dense"}, ArgumentError, "cannot have storage type 'dense'"),
    ],
)
def test_wrong_variables_are_refused(arguments, error, message) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(error, match=message):
        sym.Variable("x", **arguments)
    with pytest.raises(ValueError, match="x"):
        sym.Variable("x", **arguments)


def test_name_of_a_variable_must_be_a_string() -> None:
    with pytest.raises(ArgumentTypeError, match="not 3"):
        sym.Variable(3)  # type: ignore[arg-type]


def test_attr_dict_shows_nodes_that_have_attributes() -> None:
    net = sym.FullyConnected(sym.Variable("x"), num_hidden=2, name="fc")
    net = sym.exp(net, name="e", attr={"ctx_group": "dev1"})
    assert net.attr_dict() == {
        "fc": {"num_hidden": "2"},
        "fc_weight": {"num_hidden": "2"},
        "fc_bias": {"num_hidden": "2"},
        "e": {"__ctx_group__": "dev1", "ctx_group": "dev1"},
    }


def test_scope_adds_to_variables_and_operators() -> None:
    with sym.AttrScope(ctx_group="dev1"):
        net = sym.FullyConnected(sym.Variable("x"), num_hidden=2, name="fc")
    for name in ("x", "fc", "fc_weight", "fc_bias"):
        assert net.attr_dict()[name]["__ctx_group__"] == "dev1"
    assert sym.Variable("y").list_attr() == {}


def test_inner_scope_wins_and_outer_comes_back() -> None:
    with sym.AttrScope(__a__="1", __b__="1"):
        inner = sym.AttrScope(__b__="2")
        with inner:
            assert sym.Variable("x").list_attr() == {"__a__": "1", "__b__": "2"}
        assert sym.Variable("x").list_attr() == {"__a__": "1", "__b__": "1"}
    # A scope that was used inside another may be used again outside.
    with inner:
        assert sym.Variable("x").list_attr() == {"__b__": "2"}


def test_given_attributes_win_over_the_scope() -> None:
    with sym.AttrScope(__a__="1"):
        x = sym.Variable("x", attr={"__a__": "2"})
        net = sym.exp(x, attr={"__a__": "3"})
    assert x.attr("__a__") == "2"
    assert net.attr("__a__") == "3"


def test_scope_takes_strings_only() -> None:
    with pytest.raises(ArgumentError, match="need to be string: `lr_mult` is 2"):
        sym.AttrScope(lr_mult=2)  # type: ignore[arg-type]


def test_plain_keys_of_a_scope_are_not_for_operators() -> None:
    with (
        sym.AttrScope(mood="calm"),
        pytest.raises(OperatorError, match="no attribute `mood`"),
    ):
        sym.exp(sym.Variable("x"))
