"""Every gradient rule against numerical differences, in a random direction, float64.

A loss head's backward is no derivative of its output, so its rows give the loss that
the head stands for. An operator that has a gradient rule but no row fails the test.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import pytest

from runtime.graph import registry
from runtime.graph.ir import Entry, Graph, Node
from runtime.graph.registry import Array
from runtime.ops import arithmetic, elementwise, reduce, special
from tests.golden.linear_algebra_cases import CASES
from tests.runtime.ops.interpreter import backward, forward, node

Loss = Callable[..., float]
STEP = 1e-6

# Where an elementwise function is smooth; (0.2, 1.2) with both signs if not said.
DOMAINS = {
    **dict.fromkeys(
        ("sqrt", "rsqrt", "cbrt", "rcbrt", "log", "log1p", "log2", "log10"), (0.5, 2)
    ),
    "arccosh": (1.2, 2.0),
    **dict.fromkeys(("arcsin", "arccos", "arctanh"), (-0.8, 0.8)),
}


@dataclass
class Row:
    """An operator at one point: shapes of its inputs, labels and the like as arrays."""

    operator: str
    shapes: tuple[tuple[int, ...], ...] = ((3, 4),)
    attributes: Mapping[str, str] = field(default_factory=dict)
    domain: tuple[float, float] | None = None
    fixed: Mapping[str, Array] = field(default_factory=dict)
    loss: Loss | None = None

    def __str__(self) -> str:
        values = ",".join(f"{k}={v}" for k, v in self.attributes.items())
        return f"{self.operator}({values})".replace(" ", "")


def cross_entropy(axis: int, **options: float) -> Loss:
    scale, ignore = options.get("scale", 1.0), options.get("ignore")
    smooth = options.get("smooth", 0.0)

    def loss(p: Array, label: Array) -> float:
        classes = p.shape[axis]
        hit = np.expand_dims(label, axis) == np.arange(classes).reshape(
            [-1 if i == axis % p.ndim else 1 for i in range(p.ndim)]
        )
        target = np.where(hit, 1 - smooth, smooth / (classes - 1))
        if ignore is not None:
            target = target * np.expand_dims(label != ignore, axis)
        return -scale * float((target * np.log(p)).sum())

    return loss


def hinge(margin: float, scale: float, power: int) -> Loss:
    def loss(scores: Array, label: Array) -> float:
        sign = np.where(label[:, None] == np.arange(scores.shape[1]), -1, 1)
        missing = np.maximum(margin + sign * scores, 0)
        return scale * float((missing**power).sum())

    return loss


LABEL = np.array([2.0, 0.0, 3.0])
COUNTS = np.array([[0.0, 1.0, 2.0], [5.0, 1.0, 0.0]])
TARGET = np.linspace(-1, 1, 12).reshape(3, 4)
IMAGE = (2, 4, 7, 6)
BATCH_NORM = ((4, 3, 2), (3,), (3,), (3,), (3,))
POSITIVE = (0.5, 2.0)

ROWS = [
    *(
        Row(row.name, domain=DOMAINS.get(row.name))
        for row in elementwise.TABLE
        if row.slope
    ),
    *(
        Row(name, ((3, 4), other), domain=POSITIVE)
        for row in arithmetic.TABLE
        if row.slopes
        for name, other in (
            (row.names.split()[0], (3, 4)),
            (row.broadcast.split()[0], (3, 1)),
            (row.broadcast.split()[0], (1, 4)),
        )
    ),
    *(
        Row(name, attributes={"scalar": "1.3"}, domain=POSITIVE)
        for row in arithmetic.TABLE
        if row.slopes
        for name in (row.scalar, row.reversed)
        if name
    ),
    *(
        Row(names.split()[0], ((2, 3, 4),), attributes, POSITIVE)
        for names, _, _ in reduce.TABLE
        for attributes in ({}, {"axis": "1"}, {"axis": "(0, 2)", "keepdims": "True"})
    ),
    *(
        Row("Activation", attributes={"act_type": kind})
        for kind in ("relu", "sigmoid", "tanh", "softrelu", "softsign")
    ),
    Row("FullyConnected", ((3, 2, 2), (5, 4), (5,)), {"num_hidden": "5"}),
    Row(
        "FullyConnected",
        ((3, 2, 4), (5, 4)),
        {"num_hidden": "5", "no_bias": "True", "flatten": "False"},
    ),
    Row(
        "Convolution",
        (IMAGE, (6, 2, 3, 2), (6,)),
        {
            "kernel": "(3, 2)",
            "num_filter": "6",
            "num_group": "2",
            "stride": "(2, 1)",
            "dilate": "(1, 2)",
            "pad": "(1, 0)",
        },
    ),
    Row(
        "Convolution",
        ((2, 3, 5), (2, 3, 2)),
        {"kernel": "(2,)", "num_filter": "2", "no_bias": "True"},
    ),
    Row(
        "Convolution",
        ((1, 2, 3, 4, 3), (2, 2, 2, 2, 2), (2,)),
        {"kernel": "(2, 2, 2)", "num_filter": "2"},
    ),
    *(
        Row(
            "Pooling",
            (IMAGE,),
            {
                "kernel": "(3, 2)",
                "stride": "(2, 2)",
                "pad": "(1, 1)",
                "pool_type": kind,
                "pooling_convention": convention,
                "count_include_pad": "False",
                "p_value": "3",
            },
            POSITIVE,
        )
        for kind in ("max", "avg", "sum", "lp")
        for convention in ("valid", "full")
    ),
    Row("Pooling", (IMAGE,), {"global_pool": "True", "pool_type": "avg"}),
    Row("BatchNorm", BATCH_NORM, {"fix_gamma": "False"}, POSITIVE),
    Row("BatchNorm", BATCH_NORM, {}, POSITIVE),
    Row(
        "BatchNorm",
        BATCH_NORM,
        {"fix_gamma": "False", "use_global_stats": "True"},
        POSITIVE,
    ),
    Row("Flatten", ((2, 3, 2),)),
    Row("Reshape", ((2, 6),), {"shape": "(3, -1)"}),
    Row("_copy"),
    Row("Concat", ((2, 3), (2, 1), (2, 2)), {"num_args": "3"}),
    Row("Concat", ((2, 3), (1, 3)), {"num_args": "2", "dim": "-2"}),
    Row("_rnn_param_concat", ((3,), (2,)), {"num_args": "2", "dim": "0"}),
    Row("Dropout", ((40, 5),), {"p": "0.4"}),
    Row("Dropout", ((40, 5),), {"p": "0.4", "axes": "(1,)"}),
    *(
        Row(name, ((2, 3, 4),), {"axis": axis, "temperature": "0.7"})
        for name in ("softmax", "softmin", "log_softmax")
        for axis in ("-1", "1")
    ),
    Row(
        "softmax",
        attributes={"use_length": "True"},
        fixed={"length": np.array([1.0, 3.0, 4.0])},
    ),
    Row("SoftmaxActivation", ((2, 3, 4),)),
    Row("SoftmaxActivation", ((2, 3, 4),), {"mode": "channel"}),
    Row("SoftmaxOutput", fixed={"label": LABEL}, loss=cross_entropy(-1)),
    Row(
        "SoftmaxOutput",
        attributes={"smooth_alpha": "0.2", "grad_scale": "2", "normalization": "batch"},
        fixed={"label": LABEL},
        loss=cross_entropy(-1, smooth=0.2, scale=2 / 3),
    ),
    Row(
        "SoftmaxOutput",
        attributes={
            "use_ignore": "True",
            "ignore_label": "3",
            "normalization": "valid",
        },
        fixed={"label": LABEL},
        loss=cross_entropy(-1, ignore=3, scale=1 / 2),
    ),
    Row(
        "SoftmaxOutput",
        ((1, 4, 3),),
        {"multi_output": "True"},
        fixed={"label": LABEL[None]},
        loss=cross_entropy(1, scale=1 / 3),
    ),
    Row(  # Smoothing does not reach several outputs.
        "SoftmaxOutput",
        ((2, 4, 3),),
        {"multi_output": "True", "normalization": "batch", "smooth_alpha": "0.2"},
        fixed={"label": np.array([LABEL, LABEL])},
        loss=cross_entropy(1, scale=1 / 6),
    ),
    Row(
        "SoftmaxOutput",
        ((1, 3, 4),),
        {"preserve_shape": "True"},
        fixed={"label": LABEL[None]},
        loss=cross_entropy(-1),
    ),
    Row(
        "SoftmaxOutput",
        fixed={"label": np.full((3, 4), 0.25)},
        loss=lambda p, label: -float((label * np.log(p)).sum()),
    ),
    Row(
        "LinearRegressionOutput",
        attributes={"grad_scale": "3"},
        fixed={"label": TARGET},
        loss=lambda y, label: 3 / 4 * float(np.square(y - label).sum()) / 2,
    ),
    Row(
        "LogisticRegressionOutput",
        fixed={"label": TARGET},
        loss=lambda y, t: -float((t * np.log(y) + (1 - t) * np.log(1 - y)).sum()) / 4,
    ),
    Row(
        "MAERegressionOutput",
        fixed={"label": TARGET},
        loss=lambda y, label: float(np.abs(y - label).sum()) / 4,
    ),
    Row(
        "MakeLoss",
        attributes={"grad_scale": "6", "normalization": "batch"},
        loss=lambda y: 2 * float(y.sum()),
    ),
    *(
        Row(
            name,
            ((4, 3),),
            {"input_dim": "4", "output_dim": "3"},
            fixed={"data": np.array([[0, 3, 3], [-1, 9, 1.7]])},
        )
        for name in ("Embedding", "_contrib_SparseEmbedding")
    ),
    Row("_square_sum", ((3, 4),), {"axis": "1", "keepdims": "True"}),
    Row("_square_sum", ((3, 4),)),
    *(
        Row(
            "take",
            ((4, 3, 2),),
            {"axis": axis, "mode": mode},
            fixed={"indices": np.array([[0, 2, 2], [-1, 7, 1]])},
        )
        for axis, mode in (("0", "clip"), ("1", "wrap"), ("-1", "clip"))
    ),
    Row("pick", fixed={"index": np.array([0.0, 3, 9])}),
    Row(
        "pick",
        ((2, 3, 4),),
        {"axis": "1", "keepdims": "True", "mode": "wrap"},
        fixed={"index": np.arange(8.0).reshape(2, 1, 4)},
    ),
    Row("SwapAxis", ((2, 3, 4),), {"dim1": "0", "dim2": "-1"}),
    Row("transpose", ((2, 3, 4),)),
    Row("transpose", ((2, 3, 4),), {"axes": "(1, 2, 0)"}),
    Row("expand_dims", attributes={"axis": "-1"}),
    Row("squeeze", ((2, 1, 3, 1),)),
    Row("SliceChannel", ((2, 6, 2),), {"num_outputs": "3"}),
    Row(
        "SliceChannel",
        ((2, 4, 3),),
        {"num_outputs": "3", "axis": "-1", "squeeze_axis": "True"},
    ),
    *(
        Row(name, shapes, {"transpose_a": str(a), "transpose_b": str(b)})
        for a, b, left, right in (
            (False, False, (3, 4), (4, 2)),
            (True, False, (4, 3), (4, 2)),
            (False, True, (3, 4), (2, 4)),
            (True, True, (4, 3), (2, 4)),
        )
        for name, shapes in (
            ("dot", (left, right)),
            ("batch_dot", ((2, *left), (2, *right))),
        )
    ),
    Row("dot", ((2, 3, 4), (4, 2, 3))),
    Row("dot", ((4, 2, 3), (2, 3, 4)), {"transpose_a": "True", "transpose_b": "True"}),
    Row("dot", ((4,), (4,))),
    Row("LayerNorm", ((3, 4), (4,), (4,))),
    Row("LayerNorm", ((2, 3, 4), (3,), (3,)), {"axis": "1"}),
    Row("slice", ((5, 4),), {"begin": "(4, 1)", "end": "(0, None)", "step": "(-2, 1)"}),
    Row("slice_axis", attributes={"axis": "-1", "begin": "1", "end": "None"}),
    Row("Cast", attributes={"dtype": "float64"}),
    Row("tile", ((2, 3),), {"reps": "(2, 1, 3)"}),
    Row("tile", ((2, 3, 1),), {"reps": "(2,)"}),
    Row("repeat", ((2, 3),), {"repeats": "2"}),
    Row("repeat", ((2, 3),), {"repeats": "2", "axis": "-1"}),
    Row("reverse", ((2, 3, 4),), {"axis": "(0, 2)"}),
    Row("broadcast_to", ((2, 1, 3),), {"shape": "(0, 4, 3)"}),
    Row("broadcast_axis", ((2, 1, 1),), {"axis": "(1, 2)", "size": "(3, 2)"}),
    Row("broadcast_like", ((2, 1),), fixed={"rhs": np.zeros((2, 3))}),
    Row(
        "broadcast_like",
        ((2, 1),),
        {"lhs_axes": "(1,)", "rhs_axes": "(-1,)"},
        fixed={"rhs": np.zeros((5, 6, 3))},
    ),
    Row("slice_like", ((4, 5),), fixed={"shape_like": np.zeros((2, 3))}),
    *(
        Row(
            "Pad",
            ((1, 2, 3, 4),),
            {"mode": mode, "pad_width": "(0, 0, 0, 0, 1, 2, 2, 3)"},
        )
        for mode in ("constant", "edge", "reflect")
    ),
    Row("Crop", (IMAGE,), {"num_args": "1", "h_w": "(3, 4)", "offset": "(2, 1)"}),
    Row(
        "Crop",
        (IMAGE,),
        {"num_args": "2", "center_crop": "True"},
        fixed={"crop_like": np.zeros((1, 1, 4, 3))},
    ),
    *(
        Row("L2Normalization", ((2, 3, 4),), {"mode": mode})
        for mode in ("instance", "channel", "spatial")
    ),
    Row("InstanceNorm", ((2, 3, 4), (3,), (3,))),
    Row("GroupNorm", ((2, 4, 3), (2,), (2,)), {"num_groups": "2"}),
    Row("LRN", ((2, 6, 2, 2),), {"nsize": "5", "alpha": "2", "knorm": "1"}),
    Row("LRN", ((2, 2, 2, 2),), {"nsize": "5", "alpha": "2", "knorm": "1"}),
    *(
        Row(name, ((2, 3, 4),), {"axis": axis, "is_ascend": ascending, **more})
        for name, more in (
            ("sort", {}),
            ("topk", {"ret_typ": "value", "k": "2"}),
            ("topk", {"ret_typ": "both", "k": "2"}),
        )
        for axis, ascending in (("1", "True"), ("-1", "False"), ("None", "True"))
    ),
    Row("topk", attributes={"ret_typ": "mask", "k": "2"}),
    *(
        Row(
            name,
            ((3, 2, 4),),
            {"use_sequence_length": "True"},
            fixed={"sequence_length": np.array([1.0, 3.0])},
        )
        for name in ("SequenceMask", "SequenceLast", "SequenceReverse")
    ),
    *(
        Row(
            name,
            ((2, 3, 4),),
            {"use_sequence_length": "True", "axis": "1"},
            fixed={"sequence_length": np.array([1.0, 3.0])},
        )
        for name in ("SequenceMask", "SequenceLast")
    ),
    Row("where", ((3, 4), (3, 4)), fixed={"condition": np.array([0.0, 2.0, 0.0])}),
    Row("where", ((3, 4), (3, 4)), fixed={"condition": np.eye(3, 4)}),
    Row("add_n", ((2, 3), (2, 3), (2, 3)), {"num_args": "3"}),
    Row("stack", ((2, 3), (2, 3), (2, 3)), {"num_args": "3", "axis": "-1"}),
    Row(
        "Deconvolution",
        ((2, 4, 3, 4), (4, 3, 3, 2), (6,)),
        {
            "kernel": "(3, 2)",
            "num_filter": "6",
            "num_group": "2",
            "stride": "(2, 3)",
            "dilate": "(1, 2)",
            "pad": "(1, 0)",
            "adj": "(1, 2)",
            "no_bias": "False",
        },
    ),
    Row(
        "Deconvolution",
        ((2, 3, 4), (3, 2, 3)),
        {
            "kernel": "(3,)",
            "num_filter": "2",
            "stride": "(2,)",
            "target_shape": "(8,)",
        },
    ),
    *(
        Row(
            "UpSampling",
            ((1, 2, 4, 4), (1, 2, 2, 2)),
            {
                "scale": "2",
                "sample_type": "nearest",
                "num_args": "2",
                "multi_input_mode": mode,
            },
        )
        for mode in ("concat", "sum")
    ),
    Row(
        "UpSampling",
        ((1, 2, 3, 4), (2, 1, 5, 5)),
        {"scale": "3", "sample_type": "bilinear", "num_filter": "2"},
    ),
    *(
        Row(
            "SVMOutput",
            attributes={
                "margin": "0.5",
                "regularization_coefficient": "3",
                "use_linear": str(power == 1),
            },
            fixed={"label": LABEL},
            loss=hinge(0.5, 3, power),
        )
        for power in (1, 2)
    ),
    Row("softmax_cross_entropy", fixed={"label": LABEL}),
    *(
        Row("norm", ((2, 3, 4),), {"ord": order, **attributes})
        for order in ("1", "2")
        for attributes in ({}, {"axis": "1"}, {"axis": "(0, 2)", "keepdims": "True"})
    ),
    Row("depth_to_space", ((2, 8, 2, 3),), {"block_size": "2"}),
    Row("space_to_depth", ((2, 2, 4, 6),), {"block_size": "2"}),
    Row("diag", ((4,),), {"k": "-1"}),
    Row("diag", ((2, 4, 3),), {"axis1": "1", "axis2": "-1", "k": "-1"}),
    Row(
        "gather_nd",
        ((3, 4, 2),),
        fixed={"indices": np.array([[0.0, 2, 2], [1, 3, 3]])},
    ),
    Row(
        "scatter_nd",
        ((3, 2),),
        {"shape": "(3, 4, 2)"},
        fixed={"indices": np.array([[0.0, 2, 2], [1, 3, 0]])},
    ),
    Row("batch_take", fixed={"indices": np.array([0.0, 3, 1])}),
    Row(
        "GridGenerator",
        ((2, 6),),
        {"transform_type": "affine", "target_shape": "(3, 4)"},
    ),
    Row("GridGenerator", ((2, 2, 3, 4),), {"transform_type": "warp"}),
    Row("BilinearSampler", ((2, 3, 5, 4), (2, 2, 3, 2))),
    Row(
        "SpatialTransformer",
        ((2, 3, 5, 4), (2, 6)),
        {
            "transform_type": "affine",
            "sampler_type": "bilinear",
            "target_shape": "(3, 4)",
        },
    ),
    Row(
        "ROIPooling",
        ((2, 3, 6, 7),),
        {"pooled_size": "(2, 3)", "spatial_scale": "0.5"},
        fixed={
            "rois": np.array([[0.0, 2, 2, 9, 8], [1, 0, 0, 20, 4], [1, 5, 5, 5, 5]])
        },
    ),
    Row("reshape_like", ((2, 6),), fixed={"rhs": np.zeros((3, 4))}),
    Row(
        "reshape_like",
        ((2, 6, 3),),
        {"lhs_begin": "1", "lhs_end": "2", "rhs_begin": "-2"},
        fixed={"rhs": np.zeros((9, 3, 2))},
    ),
    Row("clip", attributes={"a_min": "-0.7", "a_max": "0.7"}),
    Row("smooth_l1"),
    Row("smooth_l1", attributes={"scalar": "1.5"}),
    Row("hard_sigmoid", attributes={"alpha": "0.7"}),
    *(
        Row(row.name, domain=(-0.8, 0.8) if row.name == "erfinv" else None)
        for row in special.TABLE
    ),
    # Not selu: MXNet's rule, which the golden case pins, is not its derivative.
    *(
        Row("LeakyReLU", attributes={"act_type": kind})
        for kind in ("elu", "gelu", "leaky", "rrelu")
    ),
    Row("LeakyReLU", ((3, 4, 2), (4,)), {"act_type": "prelu"}),
    Row("LeakyReLU", ((3, 4, 2), (1,)), {"act_type": "prelu"}),
    *(
        Row(
            "RNN",
            ((3, 2, 4), (count,), *[(4, 2, 3)] * states),
            {
                "state_size": "3",
                "num_layers": "2",
                "mode": mode,
                "bidirectional": "True",
                "p": "0.3",
                "state_outputs": "True",
            },
        )
        for mode, count, states in (
            ("rnn_relu", 120, 1),
            ("rnn_tanh", 120, 1),
            ("lstm", 480, 2),
            ("gru", 360, 1),
        )
    ),
    Row(
        "CTCLoss",
        ((6, 3, 4),),
        fixed={"label": np.array([[1.0, 1, 2], [3, 0, 1], [2, 1, 2]])},
    ),
    Row(
        "CTCLoss",
        ((6, 3, 4),),
        {
            "use_data_lengths": "True",
            "use_label_lengths": "True",
            "blank_label": "last",
        },
        fixed={
            "label": np.array([[1.0, 1, 2], [0, -1, 1], [2, 1, 2]]),
            "data_lengths": np.array([6.0, 4, 2]),
            "label_lengths": np.array([3.0, 0, 3]),
        },
    ),
    *(
        Row(
            "Correlation",
            ((2, 3, 5, 6), (2, 3, 5, 6)),
            {
                "kernel_size": "3",
                "max_displacement": "2",
                "stride1": "2",
                "stride2": "2",
                "pad_size": "2",
                "is_multiply": multiply,
            },
        )
        for multiply in ("True", "False")
    ),
    *(
        Row("_contrib_AdaptiveAvgPooling2D", ((2, 3, 5, 4),), {"output_size": size})
        for size in ("()", "(3,)", "(2, 7)")
    ),
    *(
        Row(
            "_contrib_BilinearResize2D",
            ((2, 3, 5, 4),),
            {"height": "3", "width": "7", "align_corners": corners},
        )
        for corners in ("True", "False")
    ),
    Row(
        "_contrib_BilinearResize2D",
        ((2, 3, 5, 4),),
        {"mode": "like"},
        fixed={"like": np.zeros((1, 1, 1, 9))},
    ),
    # Without penalty: MXNet's rule for it is not a derivative (see its own tests).
    Row("IdentityAttachKLSparseReg", ((4, 3), (3,)), {"penalty": "0"}, (0.2, 0.8)),
    *(
        Row(
            "Pooling_v1",
            (IMAGE,),
            {"kernel": "(3, 2)", "stride": "(2, 2)", "pool_type": pool_type},
        )
        for pool_type in ("max", "avg", "sum")
    ),
    Row("amp_cast", attributes={"dtype": "float16"}),
    Row("amp_multicast", ((3,),), {"num_outputs": "1"}),
    Row("make_loss", loss=lambda y: float(y.sum())),
    *(
        Row(f"_random_pdf_{name}", shapes, {"is_log": is_log}, (0.2, 0.8), fixed)
        for name, shapes, fixed in (
            ("uniform", ((2, 3), (2,)), {"low": np.array([-1.0, 0.0])}),
            ("uniform", ((2, 3), (2,)), {"high": np.array([1.0, 2.0])}),
            ("normal", ((2, 3), (2,), (2,)), {}),
            ("gamma", ((2, 3), (2,), (2,)), {}),
            ("exponential", ((2, 3), (2,)), {}),
            ("poisson", ((2,),), {"sample": COUNTS}),
            ("negative_binomial", ((2,), (2,)), {"sample": COUNTS}),
            ("generalized_negative_binomial", ((2,), (2,)), {"sample": COUNTS}),
            ("dirichlet", ((2, 4, 3), (2, 3)), {}),
            ("dirichlet", ((4, 3), (3,)), {}),
        )
        for is_log in ("False", "True")
    ),
]


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_gradient(row: Row) -> None:
    generator = np.random.default_rng(7)
    graph, point = build(row, generator)
    (operator_node,) = (n for n in graph.nodes if n.operator)
    assert operator_node.operator is not None
    held = {e.node.name for e in operator_node.auxiliary_inputs}
    free = [name for name in point if name not in row.fixed and name not in held]
    direction = {name: generator.normal(size=point[name].shape) for name in free}
    run = forward(graph, point, is_train=True)
    head = generator.normal(size=run.outputs[0].shape)

    def value(step: float) -> float:
        moved = {name: point[name] + step * direction[name] for name in free}
        (output,) = forward(graph, {**point, **moved}, is_train=True).outputs
        if row.loss is not None:
            return row.loss(output, *row.fixed.values())
        return float((output * head).sum())

    given = None if operator_node.operator.is_loss else head
    grads = backward(run, [given], set(free))
    if (
        operator_node.operator.name == "BatchNorm"
        and operator_node.attributes.fix_gamma
    ):
        # Gamma reads as 1, so moving it changes nothing and it has no gradient.
        assert not grads["gamma"].any()
    along = sum(float((grads[name] * direction[name]).sum()) for name in free)
    numeric = (value(STEP) - value(-STEP)) / (2 * STEP)

    np.testing.assert_allclose(along, numeric, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_each_input_alone(row: Row) -> None:
    """A rule must cope with any of its gradients not being asked for."""
    graph, point = build(row, np.random.default_rng(7))
    (operator_node,) = (n for n in graph.nodes if n.operator)
    operator = operator_node.operator
    assert operator is not None
    assert operator.backward is not None
    run = forward(graph, point, is_train=True)
    head = None if operator.is_loss else np.ones_like(run.outputs[0])
    expected = backward(run, [head], set(point))
    p, saved = operator_node.attributes, operator.saved_for(operator_node.attributes)
    values = [run.values[e] for e in operator_node.inputs]
    outputs = [run.values[Entry(operator_node, i)] for i in range(outputs_of(graph))]
    names = operator.input_names(p)[: len(values) - len(operator_node.auxiliary_inputs)]
    for i, name in enumerate(names):
        if name in operator.no_gradient:
            continue
        targets = [np.full_like(v, 7) if i == j else None for j, v in enumerate(values)]
        operator.backward(
            p,
            [head, *[None] * (len(outputs) - 1)],
            [v if j in saved.inputs else None for j, v in enumerate(values)],
            [v if j in saved.outputs else None for j, v in enumerate(outputs)],
            targets[: len(names)],
            run.modes[operator_node],
        )
        np.testing.assert_array_equal(targets[i], expected[name])


def test_every_gradient_rule_has_a_row() -> None:
    operators = {registry.get(name) for name in registry.names()}
    differentiable = {operator.name for operator in operators if operator.backward}
    # Other tests register operators of their own, and Custom has rules of the user's.
    differentiable = {n for n in differentiable if not n.startswith("_test_")}
    # Of draws only logarithms of probabilities have a gradient: test_draw.
    differentiable -= {"Custom", "_sample_multinomial"}
    # Matrices: test_linear_algebra, with the results of MXNet.
    differentiable -= {registry.get(operator).name for operator, *_ in CASES.values()}
    assert differentiable == {row.operator for row in ROWS}


def build(row: Row, generator: np.random.Generator) -> tuple[Graph, dict[str, Array]]:
    """The operator applied to variables, and a point to try it at."""
    inputs = registry.get(row.operator)
    probe = node("probe", row.operator, [], **row.attributes)
    names = inputs.input_names(probe.attributes)
    point: dict[str, Array] = {}
    shapes = iter(row.shapes)
    for name in names:
        if name in row.fixed:
            point[name] = row.fixed[name]
        elif row.domain:
            point[name] = generator.uniform(*row.domain, size=next(shapes))
        else:
            values = generator.uniform(0.2, 1.2, size=next(shapes))
            point[name] = values * generator.choice([-1, 1], size=values.shape)
    variables = [Entry(Node(name)) for name in names]
    applied = node("op", row.operator, variables, **row.attributes)
    return Graph((Entry(applied),)), point


def outputs_of(graph: Graph) -> int:
    return len(graph.outputs[0].node.output_names)
