"""What an operator refuses, and that the message says so."""

from __future__ import annotations

import pytest

from runtime.errors import GraphError, OperatorError, ShapeError
from runtime.graph import registry
from runtime.graph.infer import infer_shapes
from runtime.graph.ir import Entry, Graph, Node
from tests.runtime.ops.interpreter import node

CONVOLUTION = {"kernel": "(3, 3)", "num_filter": "4"}


@pytest.mark.parametrize(
    ("operator", "attributes", "shapes", "message"),
    [
        ("Convolution", CONVOLUTION, ["(2, 3, 2, 8)"], "exceeds the input (2, 8)"),
        ("Convolution", CONVOLUTION, ["(2, 3, 8)"], "data of 4 dimensions"),
        (
            "Convolution",
            CONVOLUTION | {"stride": "(1,)"},
            ["(2, 3, 8, 8)"],
            "`stride` (=(1,)) must have as many entries as `kernel`",
        ),
        (
            "Convolution",
            CONVOLUTION | {"num_group": "2"},
            ["(2, 3, 8, 8)"],
            "channels (=3) must be divisible by `num_group` (=2)",
        ),
        (
            "Convolution",
            CONVOLUTION | {"num_group": "3"},
            ["(2, 3, 8, 8)"],
            "`num_filter` (=4) must be divisible by `num_group` (=3)",
        ),
        (
            "Convolution",
            CONVOLUTION | {"layout": "NHWC"},
            ["(2, 8, 8, 3)"],
            "`layout` (='NHWC')",
        ),
        (
            "Deconvolution",
            CONVOLUTION | {"adj": "(1, 0)"},
            ["(2, 3, 4, 4)"],
            "`adj` (=(1, 0)) must be below `stride`",
        ),
        (
            "Deconvolution",
            CONVOLUTION | {"target_shape": "(9, 4)"},
            ["(2, 3, 4, 4)"],
            "`target_shape` (=(9, 4)) must not exceed (6, 6)",
        ),
        (
            "Pad",
            {"mode": "reflect", "pad_width": "(0, 0, 0, 0, 0, 0, 4, 0)"},
            ["(1, 1, 4, 4)"],
            "must be below the size 4 of axis 3",
        ),
        ("Crop", {"num_args": "1", "h_w": "(5, 2)"}, ["(1, 1, 4, 4)"], "exceeds"),
        ("slice_like", {}, ["(2, 3)", "(2, 4)"], "axis 1 of `shape_like` (=4)"),
        ("broadcast_to", {"shape": "(2, 4)"}, ["(2, 3)"], "does not broadcast"),
        ("LRN", {"nsize": "4"}, ["(1, 8, 2, 2)"], "`nsize` (=4) must be odd"),
        ("GroupNorm", {"num_groups": "2"}, ["(1, 3, 4)"], "`num_groups` (=2)"),
        ("norm", {"ord": "3"}, ["(2, 3)"], "`ord` (=3) must be 1 or 2"),
        ("where", {}, ["(2,)", "(3, 2)", "(3, 2)"], "`condition` has shape (2,)"),
        ("SVMOutput", {}, ["(2, 3, 4)"], "must be (row, class)"),
        (
            "SequenceReverse",
            {"axis": "1"},
            ["(2, 3)"],
            "`axis` (=1) must be one of (0,)",
        ),
        (
            "RNN",
            {
                "state_size": "4",
                "num_layers": "1",
                "mode": "gru",
                "projection_size": "2",
            },
            ["(5, 2, 3)"],
            "RNN does not support `projection_size` (=2)",
        ),
        (
            "RNN",
            {"state_size": "4", "num_layers": "1", "mode": "gru"},
            ["(5, 2, 3)", "(100,)"],
            "shape (100,) and shape (108,)",
        ),
        (
            "RNN",
            {"state_size": "4", "num_layers": "0", "mode": "gru"},
            ["(5, 2, 3)"],
            "`num_layers` (=0) must be at least 1",
        ),
        ("Pooling", {"kernel": "(9, 9)"}, ["(1, 1, 8, 8)"], "exceeds the input"),
        ("Pooling", {}, ["(1, 1, 8, 8)"], "`kernel` (=())"),
        ("Pooling", {"kernel": "(2,)"}, ["(4, 4)"], "3 to 5 dimensions"),
        (
            "Pooling",
            {"kernel": "(2, 2)", "pool_type": "lp"},
            ["(1, 1, 8, 8)"],
            "`p_value` (=None) must be 1, 2 or 3",
        ),
        ("BatchNorm", {"axis": "4"}, ["(2, 3, 4, 5)"], "`axis` (=4)"),
        ("BatchNorm", {}, ["(2, 3)", "(4,)"], "`gamma` cannot have both"),
        ("FullyConnected", {"num_hidden": "3"}, ["(2, 4)", "(3, 5)"], "(3, 5)"),
        ("elemwise_add", {}, ["(2, 3)", "(2, 4)"], "(2, 3) and shape (2, 4)"),
        ("broadcast_add", {}, ["(2, 3)", "(2, 4)"], "do not broadcast"),
        ("Concat", {"num_args": "2"}, ["(2, 3)", "(3, 3)"], "(2, 0) and shape (3, 0)"),
        ("Concat", {"num_args": "2", "dim": "2"}, ["(2, 3)", "(3, 3)"], "`dim` (=2)"),
        ("sum", {"axis": "2"}, ["(2, 3)"], "`axis` (=2) names no axis"),
        ("softmax", {"axis": "2"}, ["(2, 3)"], "`axis` (=2) names no axis"),
        ("SwapAxis", {"dim2": "2"}, ["(2, 3)"], "`dim2` (=2) names no axis"),
        ("transpose", {"axes": "(0, 0)"}, ["(2, 3)"], "must name each of 2 axes once"),
        ("squeeze", {"axis": "1"}, ["(2, 3)"], "axis 1 has size 3"),
        (
            "SliceChannel",
            {"num_outputs": "2"},
            ["(2, 3)"],
            "(=3) must be divisible by `num_outputs` (=2)",
        ),
        (
            "SliceChannel",
            {"num_outputs": "2", "squeeze_axis": "1"},
            ["(2, 4)"],
            "(=4) must equal `num_outputs` (=2)",
        ),
        ("slice", {"begin": "(0,)", "end": "(1, 2)"}, ["(2, 3)"], "as many entries"),
        (
            "slice",
            {"begin": "(0,)", "end": "(1,)", "step": "(0,)"},
            ["(2, 3)"],
            "`step` (=(0,)) must not be 0",
        ),
        (
            "slice_axis",
            {"axis": "1", "begin": "2", "end": "1"},
            ["(2, 3)"],
            "nothing is left of axis 1, which has size 3, between 2 and 1",
        ),
        ("dot", {}, ["(2, 3)", "(2, 3)"], "sizes 3 and 2"),
        ("batch_dot", {}, ["(2, 3, 4)", "(2, 5, 4)"], "sizes 4 and 5"),
        ("batch_dot", {}, ["(2, 3, 4)", "(3, 4, 5)"], "`batch` cannot have both"),
        ("batch_dot", {}, ["(2, 3)", "(3, 4)"], "3 or more dimensions"),
        ("pick", {}, ["(2, 3)", "(3,)"], "`index` cannot have both"),
        ("pick", {}, ["(2, 3)", "(2, 2)"], "`index` cannot have both"),
        ("LayerNorm", {}, ["(2, 3)", "(2,)"], "`gamma` cannot have both"),
        ("Reshape", {}, ["(2, 3)"], "`shape` must be given"),
        ("Reshape", {"shape": "(4, 2)"}, ["(2, 3)"], "has not the 6 elements"),
        ("Reshape", {"shape": "(-1, -1)"}, ["(2, 3)"], "more than one size to infer"),
        ("Reshape", {"shape": "(0, 0, 0)"}, ["(2, 3)"], "asks for more sizes"),
        ("Reshape", {"shape": "(-3, -3)"}, ["(2, 3)"], "asks for more sizes"),
        ("Reshape", {"shape": "(-4, 5, -1, 0)"}, ["(2, 3)"], "splits 2 into 5 x 0"),
        ("Reshape", {"shape": "(-4, 0, -1, 0)"}, ["(2, 3)"], "splits 2 into 0 x 2"),
        ("Reshape", {"shape": "(-4, -1, 0, 0)"}, ["(2, 3)"], "splits 2 into 2 x 0"),
        ("Reshape", {"shape": "(-4, 2)"}, ["(2, 3)"], "asks for more sizes"),
        ("SoftmaxOutput", {}, ["(2, 3)", "(3,)"], "`label` cannot have both"),
        (
            "SoftmaxOutput",
            {"multi_output": "True"},
            ["(2, 3, 4, 5)", "(2, 4)"],
            "(2, 20), (2, 4, 5), (2, 1, 4, 5)",
        ),
        ("CTCLoss", {}, ["(3, 2, 5)", "(2, 4)"], "no more than 3 steps"),
        ("CTCLoss", {}, ["(6, 2, 5)", "(3, 4)"], "`label` cannot have both"),
        (
            "CTCLoss",
            {"use_label_lengths": "True"},
            ["(6, 2, 5)", "(2, 4)", "(3,)"],
            "`label_lengths` cannot have both",
        ),
        (
            "Correlation",
            {"kernel_size": "2"},
            ["(1, 2, 5, 5)"],
            "`kernel_size` (=2) must be odd",
        ),
        ("Correlation", {"stride2": "0"}, ["(1, 2, 5, 5)"], "`stride2` (=0)"),
        ("Correlation", {"pad_size": "-1"}, ["(1, 2, 5, 5)"], "`pad_size` (=-1)"),
        (
            "Correlation",
            {"max_displacement": "3"},
            ["(1, 2, 5, 5)"],
            "must fit in the size 5",
        ),
        (
            "IdentityAttachKLSparseReg",
            {"momentum": "1.5"},
            ["(4, 3)"],
            "`momentum` (=1.5) must be from 0 to 1",
        ),
        ("IdentityAttachKLSparseReg", {}, ["(4, 3, 2)"], "`data` cannot have both"),
        (
            "_contrib_AdaptiveAvgPooling2D",
            {"output_size": "(1, 2, 3)"},
            ["(1, 2, 5, 5)"],
            "`output_size` (=(1, 2, 3)) must be one or two",
        ),
        (
            "_contrib_BilinearResize2D",
            {"scale_height": "2"},
            ["(1, 2, 5, 5)"],
            "must both be given, but are 2.0 and None",
        ),
        (
            "_contrib_BilinearResize2D",
            {"mode": "odd_scale", "scale_width": "2"},
            ["(1, 2, 5, 5)"],
            "must both be given, but are None and 2.0",
        ),
        (
            "_contrib_BilinearResize2D",
            {"height": "0"},
            ["(1, 2, 5, 5)"],
            "would become 0 high and 1 wide",
        ),
        (
            "LinearRegressionOutput",
            {},
            ["(4, 3)", "(4, 2)"],
            "`label` has shape (4, 2)",
        ),
    ],
)
def test_refused(
    operator: str, attributes: dict[str, str], shapes: list[str], message: str
) -> None:
    found = registry.get(operator)
    probe = node("probe", operator, [], **attributes)
    names = found.input_names(probe.attributes)
    inputs = [Entry(Node(name)) for name in names]
    applied = node("here", operator, inputs, **attributes)
    known = {
        name: tuple(map(int, text.strip("()").rstrip(",").split(",")))
        for name, text in zip(names, shapes, strict=False)
    }
    with pytest.raises(GraphError) as caught:
        infer_shapes(Graph((Entry(applied),)), known)
    assert message in str(caught.value)
    assert f"operator {operator} at node `here`" in str(caught.value)


def test_an_unknown_operator_suggests_names() -> None:
    with pytest.raises(OperatorError, match=r"`Convolutoin`; did you mean Convolution"):
        registry.get("Convolutoin")


@pytest.mark.parametrize("name", ["FullyConnected", "_PlusScalar", "_RMinusScalar"])
def test_names_and_aliases_are_found(name: str) -> None:
    assert name in (registry.get(name).name, *registry.get(name).aliases)


@pytest.mark.parametrize(
    ("operator", "inputs", "total"),
    [
        ("Concat", [(2, 3), None], 3),
        ("_rnn_param_concat", [(2, 3), None, None], 8),
    ],
)
def test_an_output_that_leaves_no_room(
    operator: str, inputs: list[tuple[int, ...] | None], total: int
) -> None:
    found = registry.get(operator)
    p = found.attributes(num_args=len(inputs), dim=1)
    with pytest.raises(
        ShapeError, match=rf"{total} elements along `dim` \(=1\) do not"
    ):
        found.shape(p, inputs, [(2, total)])
