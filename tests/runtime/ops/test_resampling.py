"""What the golden cases of images of another size leave open."""

from __future__ import annotations

import numpy as np
import pytest

from runtime.graph.registry import Array
from tests.runtime.ops.interpreter import apply


def ramp(height: int, width: int) -> Array:
    return np.arange(height * width, dtype=float).reshape(1, 1, height, width)


def test_bins_cover_the_image_and_may_share_pixels() -> None:
    data = ramp(2, 5)
    (output,) = apply(
        "_contrib_AdaptiveAvgPooling2D", data, output_size="(1, 3)"
    ).outputs
    # Columns 0-1, 1-3 and 3-4.
    assert output.tolist() == [[[[3.0, 4.5, 6.0]]]]


@pytest.mark.parametrize(
    ("size", "shape"),
    [("()", (1, 1)), ("None", (1, 1)), ("3", (3, 3)), ("(7, 2)", (7, 2))],
)
def test_sizes_of_adaptive_pooling(size: str, shape: tuple[int, int]) -> None:
    attributes = {} if size == "None" else {"output_size": size}
    (output,) = apply("_contrib_AdaptiveAvgPooling2D", ramp(4, 6), **attributes).outputs
    assert output.shape == (1, 1, *shape)
    np.testing.assert_allclose(output.mean(), ramp(4, 6).mean())


def test_a_nan_reaches_only_its_own_bins() -> None:
    data = ramp(4, 4)
    data[0, 0, 0, 0] = np.nan
    (output,) = apply("_contrib_AdaptiveAvgPooling2D", data, output_size="2").outputs
    assert np.isnan(output).tolist() == [[[[True, False], [False, False]]]]


@pytest.mark.parametrize(
    ("corners", "expected"),
    [("True", [0, 1 / 3, 2 / 3, 1]), ("False", [0, 0.25, 0.75, 1])],
)
def test_corners_are_centers_or_edges(corners: str, expected: list[float]) -> None:
    (output,) = apply(
        "_contrib_BilinearResize2D",
        ramp(1, 2),
        height="1",
        width="4",
        align_corners=corners,
    ).outputs
    np.testing.assert_allclose(output[0, 0, 0], expected)


@pytest.mark.parametrize(
    ("attributes", "shape"),
    [
        ({}, (1, 1)),
        ({"scale_height": "0.7", "scale_width": "1.5"}, (4, 10)),
        ({"scale_width": "2", "height": "3", "width": "4"}, (3, 4)),
        ({"mode": "odd_scale", "scale_height": "2", "scale_width": "0.6"}, (12, 4)),
        ({"mode": "to_even_down"}, (6, 6)),
        ({"mode": "to_even_up"}, (6, 8)),
        ({"mode": "to_odd_down"}, (5, 7)),
        ({"mode": "to_odd_up"}, (7, 7)),
    ],
)
def test_sizes_of_bilinear_resizing(
    attributes: dict[str, str], shape: tuple[int, int]
) -> None:
    """The sizes that MXNet gives to (6, 7) images."""
    (output,) = apply("_contrib_BilinearResize2D", ramp(6, 7), **attributes).outputs
    assert output.shape == (1, 1, *shape)
