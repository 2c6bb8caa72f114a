from __future__ import annotations

import inspect

import numpy as np
import pytest

import asyncmod.symbol as sym
from asyncmod.errors import ArgumentTypeError
from asyncmod.symbol import fluent
from runtime.errors import GraphError, OperatorError
from runtime.graph import registry
from tests.asyncmod.symbol.conftest import pieces_operator


def test_missing_inputs_become_variables_with_the_attributes() -> None:
    net = sym.FullyConnected(num_hidden=4, name="fc", lr_mult=2)
    assert net.list_arguments() == ["fc_data", "fc_weight", "fc_bias"]
    weight = net.get_internals()["fc_weight"]
    assert weight.list_attr() == {
        "num_hidden": "4",
        "__lr_mult__": "2",
        "lr_mult": "2",
    }


def test_given_variables_keep_their_own_attributes() -> None:
    weight = sym.Variable("w", wd_mult=3)
    net = sym.FullyConnected(weight=weight, num_hidden=4, name="fc", wd_mult=5)
    assert net.attr_dict()["w"] == {"__wd_mult__": "3", "wd_mult": "3"}
    assert net.attr_dict()["fc_bias"]["wd_mult"] == "5"


def test_inputs_depend_on_attributes() -> None:
    net = sym.FullyConnected(num_hidden=4, no_bias=True, name="fc")
    assert net.list_arguments() == ["fc_data", "fc_weight"]


def test_auxiliary_states_carry_their_initializers() -> None:
    net = sym.BatchNorm(name="bn")
    assert net.attr_dict() == {
        "bn_moving_mean": {"__init__": '["zero", {}]'},
        "bn_moving_var": {"__init__": '["one", {}]'},
    }
    variance = net.get_internals()["bn_moving_var"]
    assert variance.list_attr() == {"__init__": '["one", {}]'}


def test_initializers_of_an_operator_reach_given_variables() -> None:
    own = sym.Variable("spread", init='["zero", {}]')
    net = sym.BatchNorm(moving_mean=sym.Variable("center"), moving_var=own)
    assert net.attr_dict()["center"] == {"__init__": '["zero", {}]'}
    assert net.attr_dict()["spread"] == {"__init__": '["zero", {}]'}
    assert '"center", \n      "attrs": {"__init__": "[\\"zero' in net.tojson()


def test_contributed_operators_name_nodes_without_their_prefix() -> None:
    with sym.NameManager():
        assert sym.contrib.BilinearResize2D().name == "bilinearresize2d0"
        assert sym.CTCLoss().list_outputs() == ["ctcloss0_output0"]
        assert sym.contrib.CTCLoss().name == "ctcloss1"


def test_attributes_by_position_follow_the_inputs() -> None:
    x = sym.Variable("x")
    assert sym.Reshape(x, (0, -1)).attr("shape") == "(0, -1)"
    assert sym.sum(x, None, True).list_attr() == {"axis": "None", "keepdims": "True"}
    assert sym.FullyConnected(x, None, None, 10).attr("num_hidden") == "10"


def test_python_values_become_mxnet_strings() -> None:
    x = sym.Variable("x")
    conv = sym.Convolution(x, kernel=[3, 3], num_filter=np.int64(8), no_bias=True)
    assert conv.list_attr() == {
        "kernel": "(3, 3)",
        "num_filter": "8",
        "no_bias": "True",
    }
    assert sym.Dropout(x, p=0.25).attr("p") == "0.25"


def test_variadic_operators_count_their_inputs() -> None:
    net = sym.Concat(sym.Variable("a"), sym.Variable("b"), dim=0, name="c")
    assert net.list_attr() == {"dim": "0", "num_args": "2"}
    by_name = sym.Concat(arg0=sym.Variable("a"), arg1=sym.Variable("b"))
    assert by_name.list_arguments() == ["a", "b"]
    filled = sym.Concat(sym.Variable("a"), num_args=2, name="c")
    assert filled.list_arguments() == ["a", "c_arg1"]


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda x: sym.FullyConnected(x, num_hiden=3),
            OperatorError,
            "FullyConnected has no attribute `num_hiden`",
        ),
        (
            lambda x: sym.FullyConnected(x),
            OperatorError,
            "Required parameter num_hidden of int is not presented",
        ),
        (
            lambda x: sym.FullyConnected(x, num_hidden="many"),
            OperatorError,
            r"`num_hidden` \(='many'\)",
        ),
        (
            lambda x: sym.FullyConnected(x, x, x, x, num_hidden=3),
            GraphError,
            r"takes 3 inputs \(data, weight, bias\), but 4 were given",
        ),
        (
            lambda x: sym.FullyConnected(x, data=x, num_hidden=3),
            GraphError,
            "`data` .* given twice",
        ),
        (
            lambda x: sym.FullyConnected(x, wait=x, num_hidden=3),
            GraphError,
            "no input `wait`; its inputs are: data, weight, bias",
        ),
        (
            lambda x: sym.FullyConnected(data=np.zeros(3), num_hidden=3),
            ArgumentTypeError,
            "`data` must be a Symbol",
        ),
        (
            lambda x: sym.FullyConnected(x, 3, x),
            ArgumentTypeError,
            "follows 3, which is not a Symbol",
        ),
        (
            lambda x: sym.Reshape(x, (1,), shape=(1,)),
            ArgumentTypeError,
            "several values for `shape`",
        ),
        (
            lambda x: sym.Flatten(x, 1),
            ArgumentTypeError,
            "at most 0 attributes by position",
        ),
        (
            lambda x: sym.Concat(x, x, 1),
            ArgumentTypeError,
            "give attributes by name",
        ),
        (
            lambda x: sym.FullyConnected(x, num_hidden=3, weight_lr_mult=2),
            OperatorError,
            r"w = Variable\(..., lr_mult=2\), and pass it as weight=w",
        ),
        (
            lambda x: sym.BatchNorm(x, moving_mean=x + 1),
            GraphError,
            "`moving_mean` .* auxiliary state and must be a variable",
        ),
        (lambda x: sym.exp(x, name=3), ArgumentTypeError, "`name` must be a string"),
    ],
)
def test_wrong_calls_say_what_is_wrong(call, error, message) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(error, match=message):
        call(sym.Variable("x"))


def test_every_alias_names_by_itself() -> None:
    x = sym.Variable("x")
    with sym.NameManager():
        assert sym.Softmax(x).name == "softmax0"
        assert sym.SoftmaxOutput(x).name == "softmaxoutput0"
    assert sym.Softmax(x).graph.nodes[-1].operator is registry.get("SoftmaxOutput")


def test_all_registered_names_are_functions() -> None:
    for name in registry.names():
        assert callable(getattr(sym, name)), name
    assert set(registry.names()) <= set(dir(sym))


def test_operators_registered_later_are_there() -> None:
    assert not hasattr(sym, "Fragments")
    operator = pieces_operator()
    late = registry.Operator(
        name="Fragments",
        attributes=operator.attributes,
        shape=operator.shape,
        forward=operator.forward,
    )
    registry.register(late)
    net = sym.Fragments(sym.Variable("x"), num_outputs=1)
    assert net.graph.nodes[-1].operator is late


def test_unknown_operator_shows_near_matches() -> None:
    with pytest.raises(AttributeError, match="did you mean FullyConnected"):
        _ = sym.FullyConected


def test_signature_shows_inputs_and_attributes() -> None:
    signature = inspect.signature(sym.FullyConnected)
    assert list(signature.parameters) == [
        "data",
        "weight",
        "bias",
        "num_hidden",
        "no_bias",
        "flatten",
        "name",
        "attr",
    ]
    assert signature.parameters["no_bias"].default is False
    assert repr(signature.parameters["num_hidden"].default) == "<required>"
    assert list(inspect.signature(sym.Concat).parameters)[:2] == ["args", "dim"]


def test_signature_shows_inputs_that_only_some_attributes_bring() -> None:
    assert list(inspect.signature(sym.softmax).parameters)[:2] == ["data", "length"]


def test_docstring_describes_the_operator() -> None:
    text = sym.BatchNorm.__doc__ or ""
    assert text.startswith("Apply the operator `BatchNorm`.")
    assert "moving_mean: Auxiliary state" in text
    assert "momentum: float, default 0.9." in text
    assert "num_hidden: int, required." in (sym.FullyConnected.__doc__ or "")
    assert "`SoftmaxOutput`" in (sym.Softmax.__doc__ or "")


def test_operators_are_methods_too() -> None:
    with sym.NameManager():
        net = sym.Variable("x").reshape((0, -1)).sum(axis=1)
        assert net.name == "sum0"
    assert net.get_internals()["reshape0_output"].attr("shape") == "(0, -1)"


@pytest.mark.parametrize(
    ("made", "shapes"),
    [
        (sym.eye(2, 3, k=1), [(2, 3)]),
        (sym.linspace(0, 1, 5), [(5,)]),
        (sym.split_v2(sym.zeros((2, 5)), (1, 3), axis=1), [(2, 1), (2, 2), (2, 2)]),
        (sym.split_v2(sym.zeros((2, 3)), 2, squeeze_axis=True), [(3,), (3,)]),
        (sym.split_v2(sym.zeros([4, 3]), np.int64(2)), [(2, 3), (2, 3)]),
        (sym.ones(np.int64(4)), [(4,)]),
        (sym.random.normal(shape=np.array([4, 3])), [(4, 3)]),
        (sym.linalg.gemm2(sym.zeros((2, 3)), sym.zeros((3, 4))), [(2, 4)]),
        (sym.linalg.slogdet(sym.eye(3)), [(1,), (1,)]),
        (
            sym.Convolution_v1(sym.zeros((1, 2, 5, 5)), kernel=(3, 3), num_filter=4),
            None,
        ),
    ],
)
def test_functions_beside_the_operators(
    made: sym.Symbol, shapes: list[tuple[int, ...]] | None
) -> None:
    if shapes is not None:
        assert made.infer_shape()[1] == shapes
    assert sym.load_json(made.tojson()).tojson() == made.tojson()


def test_every_method_is_a_function() -> None:
    data = sym.Variable("data")
    for name in fluent.METHODS:
        assert callable(getattr(data, name))
    parts = data.split_v2((1, 3), axis=1)
    assert parts.infer_shape(data=(2, 5))[1] == [(2, 1), (2, 2), (2, 2)]
