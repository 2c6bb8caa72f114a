"""The rows that a convolution is made of, for either kind of grouping.

Next: `runtime.kernels.cpu.convolution` and `runtime.kernels.cpu.depthwise`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from runtime.devices.cpu import cost
from runtime.devices.cpu.window import Reach, by_pixel, steps, window
from runtime.graph.build import Builder
from runtime.graph.draft import At, Dense, Image, Operand, optional_fields
from runtime.graph.plan import Section
from runtime.kernels.cpu.table import (
    conv_panels_size,
    conv_weight_scratch,
    depthwise_size,
)


@dataclass(frozen=True, slots=True)
class Taps:
    """Which of a kernel's taps are read: start, step and number, by dimension."""

    rows: tuple[int, int, int]
    columns: tuple[int, int, int]

    @property
    def count(self) -> int:
        return self.rows[2] * self.columns[2]

    def fields(self) -> dict[str, Operand]:
        names = ("start", "step", "count")
        return {
            f"{dimension}_{name}": value
            for dimension, values in (("h", self.rows), ("w", self.columns))
            for name, value in zip(names, values, strict=True)
        }


@dataclass(frozen=True, slots=True)
class Packing:
    """Some taps of a weight, as a kernel reads them.

    Attributes:
        weight: As at the face.
        panels: Where they go.
        taps: Which.
        transpose: Whether they are for the way back.
        scale: One factor for each filter, or 0.
    """

    weight: Dense
    panels: Dense
    taps: Taps
    transpose: bool
    scale: At | int = 0

    def fields(self) -> dict[str, Operand]:
        """The fields that both kinds of kernels have."""
        return {
            "weight": self.weight.at,
            "scale": self.scale,
            "panels": self.panels.at,
            "kernel_h": self.weight.shape[2],
            "kernel_w": self.weight.shape[3],
            **self.taps.fields(),
        }

    @property
    def cost(self) -> float:
        return cost.floats(2 * self.panels.size)


@dataclass(frozen=True, slots=True)
class Product:
    """One convolution: target = epilogue(source * weight + bias (+ residual)).

    Attributes:
        source: What is convolved.
        target: Shape and place of the result.
        place: The target's fields, which may reach some of its pixels only.
        reach: What the taps of these pixels reach, as rows and columns.
        panels: The weight, packed.
        residual: An image of the target's shape.
        bias: One number for each channel, or 0.
        statistics, pivot: Where sums for BatchNorm are added up, or 0.
        epilogue: Code of an activation.
        adds: Whether it is added to what the target holds; alone with `panels`.
    """

    source: Image
    target: Image
    place: dict[str, At | int]
    reach: tuple[Reach, Reach]
    panels: Dense
    residual: Image | None = None
    bias: At | int = 0
    statistics: At | int = 0
    pivot: At | int = 0
    epilogue: int = 0
    adds: bool = False

    def fields(self) -> dict[str, Operand]:
        """The fields that both kinds of kernels have."""
        return {
            **self.source.fields("x"),
            **optional_fields("residual", self.residual),
            **self.place,
            "images": self.target.shape[0],
            "panels": self.panels.at,
            "bias": self.bias,
            "statistics": self.statistics,
            "pivot": self.pivot,
            "epilogue": self.epilogue,
        }

    @property
    def writes(self) -> tuple[str, ...]:
        return ("y", "statistics") if self.statistics else ("y",)


@dataclass(frozen=True, slots=True)
class WeightGradient:
    """The gradient of a weight, from those of its products' results.

    Attributes:
        source: What was convolved.
        dy: The gradient of the result.
        reach: What the taps of the result's pixels reach, as rows and columns.
        gradient: Where it goes.
        scratch: Room for sums.
        adds: Whether it is added to what is there.
    """

    source: Image
    dy: Image
    reach: tuple[Reach, Reach]
    gradient: At
    scratch: At
    adds: bool

    def fields(self) -> dict[str, Operand]:
        """The fields that both kinds of kernels have."""
        return {
            **self.source.fields("x"),
            **self.dy.fields("dy"),
            "images": self.dy.shape[0],
            "gradient": self.gradient,
            "scratch": self.scratch,
            "accumulate": int(self.adds),
        }


class Rows(Protocol):
    """How the rows of one kind are emitted; `name` is the node's."""

    def needs_halo(
        self, images: int, channels: int, reach: tuple[Reach, Reach]
    ) -> bool:
        """Whether a product with so many results reads taps outside of its source."""
        ...

    def panels_size(self, filters: int, channels: int, taps: int) -> int:
        """Floats of a packed weight."""
        ...

    def pack(
        self, b: Builder, name: str, section: Section | None, packing: Packing
    ) -> None:
        """Emit what packs a weight."""
        ...

    def product(self, b: Builder, name: str, cost: float, product: Product) -> None:
        """Emit a convolution."""
        ...

    def scratch_size(self, filters: int, channels: int, taps: int) -> int:
        """Floats of scratch for the weight's gradient."""
        ...

    def weight_gradient(
        self, b: Builder, name: str, cost: float, wanted: WeightGradient
    ) -> None:
        """Emit the gradient of a weight."""
        ...


class FullRows:
    """Every filter sees every channel."""

    def needs_halo(
        self, images: int, channels: int, reach: tuple[Reach, Reach]
    ) -> bool:
        return not by_pixel(images, channels, *reach)

    def panels_size(self, filters: int, channels: int, taps: int) -> int:
        return conv_panels_size(channels, filters, taps)

    def pack(
        self, b: Builder, name: str, section: Section | None, packing: Packing
    ) -> None:
        filters, channels = packing.weight.shape[:2]
        b.kernel(
            "conv_pack",
            name,
            ("panels",),
            packing.cost,
            section,
            **packing.fields(),
            out_channels=filters,
            in_channels=channels,
            transpose=int(packing.transpose),
        )

    def product(self, b: Builder, name: str, cost: float, product: Product) -> None:
        images, channels = product.target.shape[:2]
        b.kernel(
            "conv",
            name,
            product.writes,
            cost,
            **product.fields(),
            **window(*product.reach),
            in_channels=product.source.shape[1],
            out_channels=channels,
            accumulate=int(product.adds),
            by_pixel=by_pixel(images, channels, *product.reach),
        )

    def scratch_size(self, filters: int, channels: int, taps: int) -> int:
        return conv_weight_scratch(channels, filters, taps)

    def weight_gradient(
        self, b: Builder, name: str, cost: float, wanted: WeightGradient
    ) -> None:
        b.kernel(
            "conv_weight_gradient",
            name,
            ("gradient", "scratch"),
            cost,
            **wanted.fields(),
            **window(*wanted.reach),
            in_channels=wanted.source.shape[1],
            out_channels=wanted.dy.shape[1],
        )


class DepthwiseRows:
    """Every filter sees a channel of its own."""

    def needs_halo(
        self, images: int, channels: int, reach: tuple[Reach, Reach]
    ) -> bool:
        return True

    def panels_size(self, filters: int, channels: int, taps: int) -> int:
        return depthwise_size(filters, taps)

    def pack(
        self, b: Builder, name: str, section: Section | None, packing: Packing
    ) -> None:
        b.kernel(
            "depthwise_pack",
            name,
            ("panels",),
            packing.cost,
            section,
            **packing.fields(),
            channels=packing.weight.shape[0],
        )

    def product(self, b: Builder, name: str, cost: float, product: Product) -> None:
        fields = product.fields()
        if product.adds:
            for suffix in ("", "_image", "_row", "_pixel"):
                fields[f"residual{suffix}"] = fields[f"y{suffix}"]
        b.kernel(
            "depthwise",
            name,
            product.writes,
            cost,
            **fields,
            **steps(*product.reach),
            channels=product.target.shape[1],
        )

    def scratch_size(self, filters: int, channels: int, taps: int) -> int:
        return depthwise_size(filters, taps)

    def weight_gradient(
        self, b: Builder, name: str, cost: float, wanted: WeightGradient
    ) -> None:
        b.kernel(
            "depthwise_weight_gradient",
            name,
            ("gradient", "scratch"),
            cost,
            **wanted.fields(),
            **steps(*wanted.reach),
            channels=wanted.dy.shape[1],
        )
