from __future__ import annotations

import warnings

import numpy as np
import pytest

import asyncmod.symbol as sym
from asyncmod.errors import ArgumentError, ArgumentTypeError
from runtime.errors import ShapeError


def net() -> sym.Symbol:
    hidden = sym.FullyConnected(sym.Variable("data"), num_hidden=4, name="fc")
    normal = sym.BatchNorm(hidden, name="bn")
    return sym.SoftmaxOutput(normal, name="softmax")


def test_shapes_of_arguments_outputs_and_auxiliary_states() -> None:
    arguments, outputs, auxiliaries = net().infer_shape(data=(5, 7))
    assert arguments == [(5, 7), (4, 7), (4,), (4,), (4,), (5,)]
    assert outputs == [(5, 4)]
    assert auxiliaries == [(4,), (4,)]


def test_shapes_by_position() -> None:
    expected = net().infer_shape(data=(5, 7), fc_bias=(4,))
    assert net().infer_shape([5, 7], None, (4,)) == expected
    assert expected[0] is not None


def test_shapes_of_variables_are_known() -> None:
    x = sym.Variable("x", shape=(2, 3))
    assert sym.Flatten(x).infer_shape() == ([(2, 3)], [(2, 3)], [])


def test_too_little_gives_none_and_names_what_is_missing() -> None:
    with pytest.warns(UserWarning, match="Cannot decide shape") as caught:
        assert net().infer_shape(data=(0, 7)) == (None, None, None)
    (warning,) = caught
    missing = str(warning.message).splitlines()[1:]
    assert [line.strip() for line in missing] == ["data", "softmax_label"]
    assert warning.filename == __file__


def test_partial_inference_shows_what_is_known() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        arguments, outputs, _ = net().infer_shape_partial(data=(0, 7))
        unknown = sym.Variable("x").infer_shape_partial()
    assert arguments == [(0, 7), (4, 7), (4,), (4,), (4,), (0,)]
    assert outputs == [(0, 4)]
    assert unknown == ([()], [()], [])


def test_conflict_names_operator_and_both_shapes() -> None:
    with pytest.raises(ShapeError, match=r"FullyConnected .* \(3, 3\) .* \(4, 7\)"):
        net().infer_shape(data=(5, 7), fc_weight=(3, 3))


def test_unknown_name_lists_the_arguments() -> None:
    with pytest.raises(ShapeError, match=r"`dat` is not an argument .* fc_weight"):
        net().infer_shape(dat=(5, 7))
    with pytest.raises(ShapeError, match="`dat` is not an argument"):
        net().infer_type(dat="float32")


def test_wrong_calls_are_refused() -> None:
    with pytest.raises(ArgumentError, match="either by position or by keyword"):
        net().infer_shape((5, 7), fc_bias=(4,))
    with pytest.raises(ArgumentTypeError, match="`data` must be a tuple of integers"):
        net().infer_shape(data=5)  # type: ignore[arg-type]
    with pytest.raises(ArgumentTypeError, match="`data` must be a tuple of integers"):
        net().infer_shape(data=(5.0, 7))  # type: ignore[arg-type]
    with pytest.raises(ShapeError, match="2 values were given for 1 arguments"):
        sym.Variable("x").infer_shape((1,), (2,))


def test_one_dtype_goes_through() -> None:
    hidden = sym.FullyConnected(sym.Variable("data"), num_hidden=4)
    assert hidden.infer_type(data="float16") == (
        [np.float16] * 3,
        [np.float16],
        [],
    )
    assert hidden.infer_type(np.float64) == ([np.float64] * 3, [np.float64], [])


def test_dtype_is_float32_if_nothing_else_says() -> None:
    assert sym.exp(sym.Variable("x")).infer_type() == ([np.float32], [np.float32], [])
    typed = sym.Variable("x", dtype="int32")
    assert typed.infer_type() == ([np.int32], [np.int32], [])
