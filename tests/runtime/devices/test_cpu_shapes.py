"""Native steps against the reference, with shapes at the edges of the tiles."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import asyncmod.symbol as sym
from runtime.devices.factory import create_device
from runtime.graph.plan import NativeRow
from tests.conformance.nets import Net, results
from tests.runtime.devices.agreement import check, quick

sizes = st.integers(1, 33)
ACTIVATIONS = ("relu", "sigmoid", "tanh", "softrelu", "softsign")


@quick
@given(sizes, sizes, sizes, st.sampled_from((None, *ACTIVATIONS)), st.booleans())
def test_dense(m: int, k: int, n: int, act: str | None, no_bias: bool) -> None:
    x = sym.FullyConnected(
        sym.Variable("data"), num_hidden=n, no_bias=no_bias, name="one"
    )
    if act:
        x = sym.Activation(x, act_type=act)
    x = sym.FullyConnected(x, num_hidden=3, name="two")
    check(Net(x, {"data": (m, k)}))


@quick
@given(sizes, sizes, st.sampled_from(["null", "batch", "valid"]), st.booleans())
def test_softmax_head(
    rows: int, classes: int, normalization: str, ignore: bool
) -> None:
    x = sym.SoftmaxOutput(
        sym.Variable("data"),
        name="softmax",
        normalization=normalization,
        use_ignore=ignore,
        ignore_label=1,
        grad_scale=0.5,
    )
    check(Net(x, {"data": (rows, classes), "softmax_label": (rows,)}))


@quick
@given(
    st.sampled_from([1, 2, 3, 16]),
    st.tuples(sizes, sizes),
    st.tuples(st.integers(1, 14), st.integers(1, 14)),
    st.tuples(st.integers(1, 5), st.integers(1, 5)),
    st.sampled_from([(1, 1), (2, 2), (1, 2), (3, 2)]),
    st.tuples(st.integers(0, 2), st.integers(0, 2)),
    st.sampled_from([(1, 1), (2, 1), (2, 2)]),
    st.sampled_from((None, "relu", "tanh")),
)
def test_convolution(
    images: int,
    channels: tuple[int, int],
    size: tuple[int, int],
    kernel: tuple[int, int],
    stride: tuple[int, int],
    pad: tuple[int, int],
    dilate: tuple[int, int],
    act: str | None,
) -> None:
    if dilate != (1, 1):
        stride = (1, 1)
    if any(
        s + 2 * p < d * (k - 1) + 1
        for s, p, d, k in zip(size, pad, dilate, kernel, strict=True)
    ):
        return
    x = sym.Convolution(
        sym.Variable("data"),
        num_filter=channels[1],
        kernel=kernel,
        stride=stride,
        pad=pad,
        dilate=dilate,
        name="conv",
    )
    if act:
        x = sym.Activation(x, act_type=act)
    check(Net(x, {"data": (images, channels[0], *size)}))


@quick
@given(
    st.sampled_from([1, 2, 16]),
    sizes,
    st.tuples(st.integers(1, 14), st.integers(1, 14)),
    st.tuples(st.integers(1, 5), st.integers(1, 5)),
    st.sampled_from([(1, 1), (2, 2), (1, 2), (3, 2)]),
    st.tuples(st.integers(0, 2), st.integers(0, 2)),
    st.sampled_from((None, "relu", "tanh")),
    st.booleans(),
    st.booleans(),
)
def test_depthwise_convolution(
    images: int,
    channels: int,
    size: tuple[int, int],
    kernel: tuple[int, int],
    stride: tuple[int, int],
    pad: tuple[int, int],
    act: str | None,
    no_bias: bool,
    read_twice: bool,
) -> None:
    if any(s + 2 * p < k for s, p, k in zip(size, pad, kernel, strict=True)):
        return
    data = sym.Variable("data")
    x = sym.Convolution(
        data,
        num_filter=channels,
        num_group=channels,
        kernel=kernel,
        stride=stride,
        pad=pad,
        no_bias=no_bias,
        name="conv",
    )
    if act:
        x = sym.Activation(x, act_type=act)
    if read_twice:  # the data's gradient is a sum
        other = sym.Pooling(data, global_pool=True, kernel=(1, 1), pool_type="sum")
        x = sym.Group([x, other])
    check(Net(x, {"data": (images, channels, *size)}))


def test_depthwise_convolution_with_dilation() -> None:
    x = sym.Convolution(
        sym.Variable("data"),
        num_filter=17,
        num_group=17,
        kernel=(3, 2),
        dilate=(2, 3),
        pad=(2, 1),
        name="conv",
    )
    check(Net(x, {"data": (2, 17, 7, 9)}))


@pytest.mark.parametrize(("channels", "filters", "groups"), [(4, 6, 2), (4, 8, 4)])
def test_other_groups_are_left_to_the_definition(
    channels: int, filters: int, groups: int
) -> None:
    x = sym.Convolution(
        sym.Variable("data"), num_filter=filters, num_group=groups, kernel=(3, 3)
    )
    check(Net(x, {"data": (2, channels, 7, 9)}), native=False)


@quick
@given(
    st.integers(1, 3),
    sizes,
    st.tuples(st.integers(1, 14), st.integers(1, 14)),
    st.sampled_from([(1, 1), (2, 2), (3, 3), (3, 2)]),
    st.sampled_from([(1, 1), (2, 2), (2, 3)]),
    st.sampled_from([(0, 0), (1, 1)]),
    st.sampled_from(["max", "avg", "sum"]),
    st.sampled_from(["valid", "full"]),
    st.sampled_from([None, False, True]),
    st.booleans(),
)
def test_pooling(
    images: int,
    channels: int,
    size: tuple[int, int],
    kernel: tuple[int, int],
    stride: tuple[int, int],
    pad: tuple[int, int],
    kind: str,
    convention: str,
    include: bool | None,
    whole: bool,
) -> None:
    if any(p >= k for p, k in zip(pad, kernel, strict=True)):
        return
    if any(s + 2 * p < k for s, p, k in zip(size, pad, kernel, strict=True)):
        return
    x = sym.Activation(sym.Variable("data"), act_type="tanh")
    x = sym.Pooling(
        x,
        kernel=kernel,
        stride=stride,
        pad=pad,
        pool_type=kind,
        pooling_convention=convention,
        count_include_pad=include,
        global_pool=whole,
    )
    # A window in the padding alone has no maximum: left to the definition.
    _, ((_, _, *out),), _ = x.infer_shape(data=(images, channels, *size))
    void = kind == "max" and not whole
    void = void and any(
        (o - 1) * s - p >= extent
        for o, s, p, extent in zip(out, stride, pad, size, strict=True)
    )
    check(Net(x, {"data": (images, channels, *size)}), native=not void)


@pytest.mark.parametrize("channels", [3, 8, 20])
@pytest.mark.parametrize("act", [None, "relu"])
def test_not_a_number_comes_out_of_every_window_that_has_it(
    channels: int, act: str | None
) -> None:
    x = sym.Variable("data")
    if act:
        x = sym.Activation(x, act_type=act)
    x = sym.Pooling(x, kernel=(3, 2), stride=(1, 2), pad=(1, 1), pool_type="max")
    net = Net(x, {"data": (2, channels, 5, 6)})
    data = net.values()["data"]
    data[0, :, 2, 3] = data[1, 0, 0, 0] = data[1, -1, 4, 5] = np.nan
    data[0, 0] = np.inf
    data[0, 0, 2, 2] = -np.inf
    data[0, 0, 2, 3] = np.nan
    found = []
    for kind in ("cpu", "reference"):
        program = net.compile(create_device(kind), False)
        net.load(program)
        program.write("input", "data", data)
        program.launch("predict")
        found.append(results(program)[f"output.{x.name}_output"])
    np.testing.assert_array_equal(*found)


@quick
@given(
    st.integers(1, 3),
    sizes,
    st.tuples(st.integers(1, 9), st.integers(1, 9)),
    st.booleans(),
    st.sampled_from((None, "relu", "sigmoid")),
    st.booleans(),
    st.sampled_from((None, "full", "depthwise")),
)
def test_batch_norm(
    images: int,
    channels: int,
    size: tuple[int, int],
    fixed: bool,
    act: str | None,
    residual: bool,
    convolution: str | None,
) -> None:
    data = sym.Variable("data")
    x = data
    if convolution:
        # A bias in front of a normalization would have a gradient of rounding errors.
        x = sym.Convolution(
            x,
            num_filter=channels,
            num_group=channels if convolution == "depthwise" else 1,
            kernel=(1, 1),
            no_bias=True,
            name="conv",
        )
    x = sym.BatchNorm(x, fix_gamma=fixed, name="norm", eps=0.1)
    if residual:
        x = x + data
    if act:
        x = sym.Activation(x, act_type=act)
    check(Net(x, {"data": (images, channels, *size)}))


@pytest.mark.parametrize("label", [np.nan, -1.0, 3.0, 1e9, -1e9, np.inf])
def test_wild_labels_are_no_index(label: float) -> None:
    x = sym.SoftmaxOutput(sym.Variable("data"), name="softmax")
    net = Net(x, {"data": (2, 3), "softmax_label": (2,)})
    program = net.compile(create_device("cpu"), True, guards=64)
    net.load(program)
    labels = np.array([label, 1], np.float32)
    program.write("input", "softmax_label", labels)
    program.launch("forward")
    program.launch("backward")
    p = program.read("output", "softmax_output")
    gradient = program.read("input_gradient", "data")
    np.testing.assert_array_equal(gradient[0], p[0])
    np.testing.assert_allclose(gradient[1], p[1] - [0, 1, 0], rtol=1e-6)


@pytest.mark.parametrize("channels", [1, 3, 8])
@pytest.mark.parametrize("read_by_another", [False, True])
def test_inputs_of_few_channels(channels: int, read_by_another: bool) -> None:
    data = sym.Variable("data")
    x = sym.Convolution(data, num_filter=channels, kernel=(3, 3), pad=(1, 1))
    if read_by_another:
        x = x + sym.Pooling(data, kernel=(1, 1), pool_type="max")
    net = Net(x, {"data": (2, channels, 5, 6)})
    check(net)
    rows = net.compile(create_device("cpu"), True).plan.sections["forward"]
    (row,) = (r for r in rows if isinstance(r, NativeRow) and r.kernel == "conv")
    few = channels < 8 and not read_by_another
    assert row.operands["x_pixel"] == (channels if few else 8)


@pytest.mark.parametrize("rows", [3, 129, 150, 160])
@pytest.mark.parametrize("act", [None, "tanh"])
def test_dense_with_a_large_weight(rows: int, act: str | None) -> None:
    x = sym.Variable("data")
    x = sym.FullyConnected(x, num_hidden=160, name="one")
    if act:
        x = sym.Activation(x, act_type=act)
    x = sym.FullyConnected(x, num_hidden=130, name="two")
    net = Net(x, {"data": (rows, 200)})
    check(net)
    plan = net.compile(create_device("cpu"), True).plan
    products = [
        row.operands["transposed"]
        for row in plan.sections["forward"]
        if isinstance(row, NativeRow) and row.kernel == "gemm"
    ]
    assert products == [rows < 160, rows < 130]


def test_batch_norm_keeps_the_digits_behind_a_large_mean() -> None:
    """Values around 1000 with a deviation of 1, whose moving mean is known."""
    x = sym.BatchNorm(sym.Variable("data"), fix_gamma=False, name="norm", eps=1e-5)
    net = Net(x, {"data": (4, 3, 5, 5)})
    random = np.random.default_rng(0)
    data = (1000 + random.normal(0, 1, (4, 3, 5, 5))).astype(np.float32)
    program = net.compile(create_device("cpu"), True)
    net.load(program)
    program.write("auxiliary", "norm_moving_mean", np.full(3, 1000.0))
    program.write("input", "data", data)
    head = program.read("head", "norm_output").astype(np.float64)
    for section in ("forward", "backward"):
        program.launch(section)  # type: ignore[arg-type]
    axes = (0, 2, 3)
    values = net.values()
    gamma, beta = (values[f"norm_{n}"].reshape(1, 3, 1, 1) for n in ("gamma", "beta"))
    centered = data - data.mean(axes, np.float64, keepdims=True)
    inverse = 1 / np.sqrt((centered**2).mean(axes, keepdims=True) + 1e-5)
    normal = centered * inverse
    mean_head = head.mean(axes, keepdims=True)
    share = (head * normal).mean(axes, keepdims=True)
    expected = {
        "output.norm_output": normal * gamma + beta,
        "gradient.norm_gamma": (head * normal).sum(axes),
        "input_gradient.data": gamma * inverse * (head - mean_head - normal * share),
    }
    got = results(program)
    for key, value in expected.items():
        # One step of float32 at 1000 is 6e-5, and that much the mean may be off.
        np.testing.assert_allclose(got[key], value, rtol=1e-4, atol=6e-5, err_msg=key)
