"""BatchNorm as a part of the convolution in front of it, in prediction."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import asyncmod.symbol as sym
from runtime.devices.contract import Program
from runtime.devices.factory import create_device
from runtime.graph.plan import NativeRow
from tests.conformance.nets import Net, resnet

quick = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)


def convolution(x: sym.Symbol, filters: int, **attributes: object) -> sym.Symbol:
    given = {"kernel": (3, 3), "pad": (1, 1), "name": "conv", **attributes}
    return sym.Convolution(x, num_filter=filters, **given)


def kernels(program: Program) -> list[str]:
    """What the rows of a prediction are."""
    rows = program.plan.sections["predict"]
    return [r.kernel if isinstance(r, NativeRow) else r.operator for r in rows]


def predict(program: Program) -> list[np.ndarray]:
    program.launch("predict")
    return [program.read("output", name) for name in program.plan.output_names]


def both(net: Net, **values: np.ndarray) -> tuple[Program, Sequence[np.ndarray]]:
    """The native program, and the outputs of the definitions."""
    expected: list[np.ndarray] = []
    for kind in ("reference", "cpu"):
        program = net.compile(create_device(kind), False, guards=64)
        net.load(program)
        for name, value in values.items():
            segments = program.plan.tensors
            segment = next(s for s in segments if name in segments[s])
            program.write(segment, name, value)
        expected = expected or predict(program)
    return program, expected


def check(net: Net, **values: np.ndarray) -> Program:
    program, expected = both(net, **values)
    for got, value in zip(predict(program), expected, strict=True):
        scale = max(1.0, float(np.abs(value).max(initial=0)))
        np.testing.assert_allclose(got, value, rtol=2e-4, atol=1e-5 * scale)
    return program


@quick
@given(
    st.sampled_from([1, 2, 16]),
    st.tuples(st.integers(1, 33), st.integers(1, 33)),
    st.tuples(st.integers(1, 9), st.integers(1, 9)),
    st.sampled_from([1, 3]),
    st.sampled_from([1, 2]),
    st.booleans(),
    st.booleans(),
    st.booleans(),
    st.sampled_from((None, "before", "behind")),
    st.sampled_from((None, "relu", "tanh")),
)
def test_every_fusion(
    images: int,
    channels: tuple[int, int],
    size: tuple[int, int],
    kernel: int,
    stride: int,
    depthwise: bool,
    fixed: bool,
    no_bias: bool,
    residual: str | None,
    act: str | None,
) -> None:
    data = sym.Variable("data")
    if depthwise:
        channels = channels[1], channels[1]
    x = convolution(
        data,
        channels[1],
        num_group=channels[1] if depthwise else 1,
        kernel=(kernel, kernel),
        pad=(kernel // 2, kernel // 2),
        stride=(stride, stride),
        no_bias=no_bias,
    )
    x = sym.BatchNorm(x, fix_gamma=fixed, name="norm", eps=1e-3)
    inputs = {"data": (images, channels[0], *size)}
    if residual is not None:
        other = sym.Variable("other")
        x = x + other if residual == "behind" else other + x
        rows, columns = (-(-n // stride) for n in size)
        inputs["other"] = (images, channels[1], rows, columns)
    if act:
        x = sym.Activation(x, act_type=act)
    program = check(Net(x, inputs))
    folded = residual is None or act is not None
    assert folded == ("add" not in kernels(program))
    assert "batch_norm_apply" not in kernels(program)


def test_a_network_is_convolutions_alone() -> None:
    program = check(resnet())
    assert kernels(program).count("conv") == 6
    assert not {"batch_norm_apply", "batch_norm_fold", "add"} & {*kernels(program)}


def test_an_input_may_be_the_residual() -> None:
    data = sym.Variable("data")
    x = sym.BatchNorm(convolution(data, 3), name="norm")
    check(Net(sym.Activation(data + x, act_type="relu"), {"data": (2, 3, 5, 6)}))


@pytest.mark.parametrize("also", ["output", "reader"])
def test_a_convolution_that_is_seen_stays(also: str) -> None:
    x = convolution(sym.Variable("data"), 4)
    y = sym.BatchNorm(x, name="norm")
    z = sym.Group([y, x]) if also == "output" else y + x
    assert "batch_norm_apply" in kernels(check(Net(z, {"data": (2, 3, 5, 6)})))


def test_another_axis_stays() -> None:
    x = sym.BatchNorm(convolution(sym.Variable("data"), 4), axis=3, name="norm")
    assert "BatchNorm" in kernels(check(Net(x, {"data": (2, 3, 5, 6)})))


def normalized() -> Net:
    x = convolution(sym.Variable("data"), 5)
    x = sym.BatchNorm(x, fix_gamma=False, name="norm", eps=1e-5)
    return Net(x, {"data": (2, 3, 5, 6)})


@pytest.mark.parametrize("variance", [0.0, 1e-12, 1e-3, 1e6, 1e30])
def test_small_and_large_variances(variance: float) -> None:
    check(normalized(), norm_moving_var=np.full(5, variance))


def test_large_means() -> None:
    """What the definition loses of a large mean is lost here, and no more."""
    net, mean = normalized(), np.full(5, 1000.0)
    program, (expected,) = both(net, norm_moving_mean=mean)
    (got,) = predict(program)
    scale = np.abs(net.values()["norm_gamma"]).max() / np.sqrt(0.5)
    step = np.spacing(np.float32(1000))
    np.testing.assert_allclose(got, expected, rtol=1e-6, atol=8 * step * scale)


def test_gamma_of_zero_leaves_beta() -> None:
    program = check(normalized(), norm_gamma=np.zeros(5))
    (got,) = predict(program)
    beta = program.read("parameter", "norm_beta")
    np.testing.assert_array_equal(got, np.broadcast_to(beta[:, None, None], got.shape))


@pytest.mark.parametrize("which", ["mean", "var"])
def test_nan_in_the_statistics_comes_out(which: str) -> None:
    values = np.array([1, np.nan, 1, 1, 1])
    program = check(normalized(), **{f"norm_moving_{which}": values})
    (got,) = predict(program)
    lost = np.isnan(got)
    assert lost[:, 1].all()
    assert lost.sum() == lost[:, 1].size


@pytest.mark.parametrize("name", ["conv_weight", "conv_bias", "norm_gamma"])
def test_changed_parameters_are_seen(name: str) -> None:
    net = normalized()
    program = check(net)
    program.write("parameter", name, 2 * program.read("parameter", name))
    _, (expected,) = both(net, **{name: 2 * net.values()[name]})
    np.testing.assert_allclose(predict(program)[0], expected, rtol=2e-4, atol=1e-5)


def test_folding_is_done_once() -> None:
    net = normalized()
    program = net.compile(create_device("cpu"), False)
    net.load(program)
    assert predict(program)[0].any()
    program.segments["packed"].data[:] = 0  # type: ignore[attr-defined]
    assert not predict(program)[0].any()


def test_a_weight_that_is_computed_is_folded_in_every_call() -> None:
    weight = sym.Variable("raw") * sym.Variable("factor")
    x = sym.Convolution(
        sym.Variable("data"), weight, num_filter=4, kernel=(3, 3), no_bias=True
    )
    net = Net(
        sym.BatchNorm(x, name="norm"),
        {"data": (2, 3, 5, 6), "raw": (4, 3, 3, 3), "factor": (4, 3, 3, 3)},
    )
    program = check(net)
    assert "batch_norm_fold" in kernels(program)
    values = 3 * net.values()["raw"]
    program.write("input", "raw", values)
    _, (expected,) = both(net, raw=values)
    np.testing.assert_allclose(predict(program)[0], expected, rtol=2e-4, atol=1e-5)
