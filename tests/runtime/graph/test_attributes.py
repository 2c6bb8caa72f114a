"""Attributes from MXNet's strings and back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pytest

from runtime.errors import OperatorError
from runtime.graph.attributes import parse, to_text


@dataclass(frozen=True)
class Everything:
    number: int
    rate: float = 0.1
    flag: bool = False
    name: str = ""
    kind: Literal["max", "avg"] = "max"
    layout: Literal["NCHW"] | None = None
    sizes: tuple[int, ...] = ()
    ends: tuple[int | None, ...] = ()


@pytest.mark.parametrize(
    ("attribute", "text", "value"),
    [
        ("number", "64", 64),
        ("number", " -3 ", -3),
        ("number", "3L", 3),
        ("rate", "1e-3", 1e-3),
        ("rate", "2", 2.0),
        ("flag", "True", True),
        ("flag", "true", True),
        ("flag", "1", True),
        ("flag", "False", False),
        ("flag", "0", False),
        ("name", "x y", "x y"),
        ("kind", "avg", "avg"),
        ("layout", "None", None),
        ("layout", "NCHW", "NCHW"),
        ("sizes", "(3, 3)", (3, 3)),
        ("sizes", "[3,3]", (3, 3)),
        ("sizes", "(3,)", (3,)),
        ("sizes", "(3L, 3L)", (3, 3)),
        ("sizes", "3", (3,)),
        ("sizes", "()", ()),
        ("ends", "(None, 2)", (None, 2)),
    ],
)
def test_values(attribute: str, text: str, value: object) -> None:
    parsed = parse(Everything, {"number": "1", attribute: text}, "Op")
    assert getattr(parsed, attribute) == value
    assert type(getattr(parsed, attribute)) is type(value)


@pytest.mark.parametrize(
    ("attribute", "text"),
    [
        ("number", "x"),
        ("number", "1.5"),
        ("number", "1_000"),
        ("number", "None"),
        ("rate", "fast"),
        ("flag", "yes"),
        ("kind", "median"),
        ("layout", "NHWC"),
        ("sizes", "(3, x)"),
        ("sizes", "3, 3"),
        ("sizes", "(3, 3"),
        ("sizes", "(1,,2)"),
        ("sizes", ""),
        ("sizes", "None"),
    ],
)
def test_a_wrong_value_is_named(attribute: str, text: str) -> None:
    with pytest.raises(OperatorError) as caught:
        parse(Everything, {"number": "1", attribute: text}, "Op")
    message = str(caught.value)
    assert "operator Op" in message
    assert f"`{attribute}`" in message
    assert repr(text) in message
    assert "must be" in message


def test_an_unknown_attribute_is_named() -> None:
    with pytest.raises(
        OperatorError, match=r"Op has no attribute `nmber`.*number, rate"
    ):
        parse(Everything, {"nmber": "1"}, "Op")


def test_a_missing_attribute_in_the_words_of_mxnet() -> None:
    expected = "Required parameter number of int is not presented, in operator Op"
    with pytest.raises(OperatorError, match=expected):
        parse(Everything, {"rate": "1"}, "Op")


def test_hidden_keys_are_passed_over() -> None:
    parsed = parse(Everything, {"number": "1", "__lr_mult__": "x"}, "Op")
    assert parsed == Everything(1)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (64, "64"),
        (np.int64(64), "64"),
        (True, "True"),
        (np.bool_(True), "True"),
        (0.1, "0.1"),
        (np.float32(0.1), "0.1"),
        (1.0, "1.0"),
        (1e-5, "1e-05"),
        ((3, 3), "(3, 3)"),
        ([3, 3], "(3, 3)"),
        ((3,), "(3,)"),
        ((), "()"),
        ((None, 2), "(None, 2)"),
        (None, "None"),
        ("max", "max"),
        (np.float16, "float16"),
        (np.dtype("int8"), "int8"),
    ],
)
def test_to_text(value: object, text: str) -> None:
    assert to_text(value) == text


def test_text_comes_back_as_the_same_value() -> None:
    values: dict[str, Any] = {
        "number": 3,
        "rate": 1 / 3,
        "flag": True,
        "sizes": (1, 2),
        "ends": (None, -1),
    }
    text = {name: to_text(value) for name, value in values.items()}
    assert parse(Everything, text, "Op") == Everything(**values)
