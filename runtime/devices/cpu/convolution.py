"""Two-dimensional Convolution, and what is fused behind it.

The data gradient is a convolution of the output's gradient with the flipped weights;
for stride s it falls apart into s x s convolutions, one per position modulo s, each
with the taps that reach those positions (no zeros are inserted).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import product as pairs

from runtime.devices.cpu import cost
from runtime.devices.cpu.convolution_rows import (
    DepthwiseRows,
    FullRows,
    Packing,
    Product,
    Rows,
    Taps,
    WeightGradient,
)
from runtime.devices.cpu.elementwise import activation_backward, fill
from runtime.devices.cpu.epilogue import code
from runtime.devices.cpu.window import Reach, classes
from runtime.graph.build import Builder
from runtime.graph.draft import At, Buffer, Dense, Image
from runtime.graph.ir import Entry, Node
from runtime.graph.plan import Section
from runtime.kernels.cpu.table import padded


@dataclass(frozen=True, slots=True)
class Statistics:
    """Sums over a convolution's output that a BatchNorm behind it wants.

    Attributes:
        pivot: Moving mean, subtracted before squaring.
        sums: Where they are once the convolution has been emitted.
    """

    pivot: Entry
    sums: list[Buffer] = field(default_factory=list)


def residual_of(addition: Node, norm: Node) -> Entry:
    """What a sum adds to a normalization's output."""
    left, right = addition.inputs
    return right if left.node is norm else left


@dataclass(frozen=True, slots=True)
class Affine:
    """What sums begin with, and what multiplies the weight's columns; 0 if nothing."""

    bias: At | int
    scale: At | int = 0


@dataclass(frozen=True, eq=False)
class ConvolutionStep:
    """One layer, and the nodes fused behind it.

    Attributes:
        layer: The Convolution node.
        activation: The activation behind it, if fused.
        statistics: Set if a BatchNorm behind it reads its output.
        norm: In prediction, the BatchNorm whose moving statistics become a part of the
            weight and the bias.
        addition: The residual sum behind that, if fused.
    """

    layer: Node
    activation: Node | None = None
    statistics: Statistics | None = None
    norm: Node | None = None
    addition: Node | None = None

    @property
    def nodes(self) -> tuple[Node, ...]:
        chain = (self.layer, self.norm, self.addition, self.activation)
        return tuple(node for node in chain if node is not None)

    @property
    def output(self) -> Entry:
        return Entry(self.nodes[-1])

    @property
    def _rows(self) -> Rows:
        full = self.layer.attributes.num_group == 1
        return FullRows() if full else DepthwiseRows()

    @property
    def _name(self) -> str:
        return "+".join(node.name for node in self.nodes)

    def _reach(self, b: Builder) -> tuple[Reach, Reach]:
        """Rows and columns of the input that the forward pass reads."""
        p = self.layer.attributes
        stride, dilate, pad = p.stride or (1, 1), p.dilate or (1, 1), p.pad or (0, 0)
        size, out = b.shape(self.layer.inputs[0]), b.shape(Entry(self.layer))
        rows, columns = (
            Reach(out[2 + i], size[2 + i], p.kernel[i], -pad[i], stride[i], dilate[i])
            for i in (0, 1)
        )
        return rows, columns

    def prepare(self, b: Builder) -> None:
        """Say what halos this layer needs."""
        data, out = self.layer.inputs[0], Entry(self.layer)
        rows, columns = self._reach(b)
        before = b.halo.get(data, (0, 0))
        b.halo[data] = (max(before[0], -rows.first), max(before[1], -columns.first))
        if not b.is_train:
            return
        images, channels = b.shape(data)[:2]
        halo = (0, 0)
        for h, w in pairs(classes(rows), classes(columns)):
            if h.reach.taps and w.reach.taps:
                if self._rows.needs_halo(images, channels, (h.reach, w.reach)):
                    halo = (max(halo[0], h.reach.halo), max(halo[1], w.reach.halo))
        b.gradient_halo[out] = halo

    def forward(self, b: Builder) -> None:
        rows, columns = reach = self._reach(b)
        data, weight = self.layer.inputs[:2]
        source = b.image(data)
        residual = None
        if self.addition is not None:
            assert self.norm is not None
            residual = b.image(residual_of(self.addition, self.norm))
        target = b.output_image(self.output)
        b.define(self.output, target)
        affine = self._affine(b)
        taps = Taps((0, 1, rows.taps), (0, 1, columns.taps))
        name = f"{weight.name}.panels"
        panels = self._pack(b, name, taps, transpose=False, scale=affine.scale)
        statistics, pivot = self._sums(b, target)
        self._rows.product(
            b,
            self._name,
            self._cost(b),
            Product(
                source,
                target,
                target.fields("y"),
                reach,
                panels,
                residual,
                affine.bias,
                statistics,
                pivot,
                int(code(self.activation)),
            ),
        )

    def _affine(self, b: Builder) -> Affine:
        """What multiplies the weight's columns, and what the sums begin with."""
        bias: At | int = 0
        if not self.layer.attributes.no_bias:
            bias = b.dense(self.layer.inputs[2]).at
        if self.norm is None:
            return Affine(bias)
        p = self.norm.attributes
        _, gamma, beta, mean, variance = self.norm.inputs
        channels = b.shape(mean)[0]
        scale, shift = (
            self._packed(b, f"{self.norm.name}.{name}", channels)
            for name in ("scale", "shift")
        )
        b.kernel(
            "batch_norm_fold",
            self._name,
            ("scale", "shift"),
            cost.floats(8 * channels),
            self._pack_section(b),
            bias=bias,
            gamma=b.dense(gamma).at,
            beta=b.dense(beta).at,
            fix_gamma=int(p.fix_gamma),
            eps=float(p.eps),
            moving_mean=b.dense(mean).at,
            moving_variance=b.dense(variance).at,
            channels=channels,
            scale=scale.at,
            shift=shift.at,
        )
        return Affine(shift.at, scale.at)

    def _pack_section(self, b: Builder) -> Section | None:
        """Where weights are packed: now and then if all that they depend on may be."""
        entries = self.layer.inputs[1:2]
        if self.norm is not None:
            entries = (*self.layer.inputs[1:], *self.norm.inputs[1:3])
        return "pack" if all(entry in b.parameters for entry in entries) else None

    def _packed(self, b: Builder, name: str, size: int) -> Dense:
        """Memory for what is packed, which lasts as long as that is valid."""
        place = b.new_dense(name, (size,), "float32")
        if self._pack_section(b) is not None:
            place.buffer.segment = "packed"
        return place

    def _sums(self, b: Builder, target: Image) -> tuple[At | int, At | int]:
        if self.statistics is None:
            return 0, 0
        shape = (2 * padded(target.shape[1]),)
        sums = b.new_dense(f"{self._name}.statistics", shape, "float64")
        self.statistics.sums.append(sums.buffer)
        fill(b, self._name, sums.buffer)
        return sums.at, b.dense(self.statistics.pivot).at

    def backward(self, b: Builder) -> None:
        dz = self._dz(b)
        if dz is None:
            return
        data, weight = self.layer.inputs[:2]
        if b.gradients.wanted(weight):
            self._weight_gradient(b, dz)
        if not self.layer.attributes.no_bias:
            self._bias_gradient(b, dz)
        if b.gradients.wanted(data):
            self._data_gradient(b, dz)

    def _dz(self, b: Builder) -> Image | None:
        dy = b.gradients.image(self.output)
        if dy is None or self.activation is None:
            return dy
        halo = b.gradient_halo.get(Entry(self.layer), (0, 0))
        dz = b.new_image(f"{self._name}.dz", dy.shape, halo)
        activation_backward(b, self.activation, dy, b.image(self.output), dz)
        return dz

    def _weight_gradient(self, b: Builder, dz: Image) -> None:
        reach = self._reach(b)
        data, weight = self.layer.inputs[:2]
        source = b.image(data)
        filters, channels, height, width = b.shape(weight)
        size = self._rows.scratch_size(filters, channels, height * width)
        scratch = b.new_dense(f"{self._name}.scratch", (size,), "float32")
        before = b.gradients.accumulator(weight)
        target = before if isinstance(before, Dense) else b.gradients.fresh(weight)
        wanted = WeightGradient(
            source, dz, reach, target.at, scratch.at, adds=target is before
        )
        self._rows.weight_gradient(b, self._name, self._cost(b), wanted)
        if target is not before:
            b.gradients.contribute(weight, target)

    def _bias_gradient(self, b: Builder, dz: Image) -> None:
        bias = self.layer.inputs[2]
        if not b.gradients.wanted(bias):
            return
        images, filters, height, width = dz.shape
        before = b.gradients.accumulator(bias)
        target = before if isinstance(before, Dense) else b.gradients.fresh(bias)
        b.kernel(
            "image_sums",
            self._name,
            ("sums",),
            cost.floats(images * height * width * dz.pixel),
            **dz.fields("x"),
            images=images,
            height=height,
            width=width,
            channels=filters,
            sums=target.at,
            accumulate=int(target is before),
        )
        if target is not before:
            b.gradients.contribute(bias, target)

    def _data_gradient(self, b: Builder, dz: Image) -> None:
        reach = self._reach(b)
        data, weight = self.layer.inputs[:2]
        rows, columns = classes(reach[0]), classes(reach[1])
        before = b.gradients.accumulator(data)
        adds = isinstance(before, Image)
        target = before if isinstance(before, Image) else b.gradients.fresh_image(data)
        covered = all(c.reach.taps for c in (*rows, *columns))
        if not covered and not adds:
            fill(b, self._name, target.buffer)
        for i, h in enumerate(rows):
            for j, w in enumerate(columns):
                if not h.reach.taps or not w.reach.taps:
                    continue
                name = f"{weight.name}.flipped{i}{j}"
                panels = self._pack(b, name, Taps(h.taps, w.taps), transpose=True)
                fields = target.fields("y", h.first, w.first)
                fields["y_row"] = target.row * reach[0].stride
                fields["y_pixel"] = target.pixel * reach[1].stride
                share = self._cost(b) / (len(rows) * len(columns))
                part = (h.reach, w.reach)
                product = Product(dz, target, fields, part, panels, adds=adds)
                self._rows.product(b, self._name, share, product)
        if not adds:
            b.gradients.contribute(data, target)

    def _pack(
        self,
        b: Builder,
        name: str,
        taps: Taps,
        *,
        transpose: bool,
        scale: At | int = 0,
    ) -> Dense:
        """Some taps of the weight, as the kernel reads them, times a scale."""
        weight = b.dense(self.layer.inputs[1])
        filters, channels = weight.shape[:2]
        size = self._rows.panels_size(filters, channels, taps.count)
        panels = self._packed(b, name, size)
        packing = Packing(weight, panels, taps, transpose, scale)
        self._rows.pack(b, self._name, self._pack_section(b), packing)
        return panels

    def _cost(self, b: Builder) -> float:
        images, _, height, width = b.shape(Entry(self.layer))
        filters, channels, rows, columns = b.shape(self.layer.inputs[1])
        return cost.multiply_adds(
            images * height * width * filters * channels * rows * columns
        )
