"""Two-dimensional Convolution, with an activation behind it, as rows of `conv`.

The data gradient is a convolution of the output's gradient with the flipped weights;
for stride s it falls apart into s x s convolutions, one per position modulo s, each
with the taps that reach those positions (no zeros are inserted).
"""

from __future__ import annotations

from dataclasses import dataclass, field

from runtime.devices.cpu import cost
from runtime.devices.cpu.elementwise import activation_backward
from runtime.devices.cpu.epilogue import code
from runtime.graph.build import Buffer, Builder, Dense, Image
from runtime.graph.ir import Entry, Node
from runtime.graph.plan import Section
from runtime.kernels.cpu.table import conv_panels_size, conv_weight_scratch, padded


@dataclass(frozen=True, slots=True)
class Statistics:
    """Sums over a convolution's output that a BatchNorm behind it wants.

    Attributes:
        pivot: Moving mean, subtracted before squaring.
        sums: Where they are once the convolution has been emitted.
    """

    pivot: Entry
    sums: list[Buffer] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Taps:
    """One dimension of one class of positions of the data gradient.

    Attributes:
        first: First position of the class in the input.
        positions: How many there are.
        start, step, count: The kernel's taps, in the order in which they are read.
        read: Row of the output's gradient that the first position reads first.
    """

    first: int
    positions: int
    start: int
    step: int
    count: int
    read: int


def taps(size: int, kernel: int, stride: int, dilate: int, pad: int) -> list[Taps]:
    """The classes of positions modulo the stride; `stride` or `dilate` must be 1."""
    classes = []
    for first in range(min(stride, size)):
        tap = (first + pad) % stride
        count = len(range(tap, kernel, stride))
        positions = len(range(first, size, stride))
        shift = (first + pad - tap) // stride
        classes.append(
            Taps(
                first,
                positions,
                tap + stride * (count - 1),
                -stride,
                count,
                shift - dilate * (count - 1),
            )
        )
    return classes


def gradient_halo(
    size: int, out: int, kernel: int, stride: int, dilate: int, pad: int
) -> int:
    """Halo of the output's gradient that the data gradient reads."""
    halo = 0
    for c in taps(size, kernel, stride, dilate, pad):
        if c.count:
            last = c.read + c.positions - 1 + dilate * (c.count - 1)
            halo = max(halo, -c.read, last - (out - 1))
    return halo


@dataclass(frozen=True, eq=False)
class ConvolutionStep:
    """One layer. `statistics` is set if a BatchNorm reads it."""

    layer: Node
    activation: Node | None = None
    statistics: Statistics | None = None

    @property
    def nodes(self) -> tuple[Node, ...]:
        return (
            (self.layer,) if self.activation is None else (self.layer, self.activation)
        )

    @property
    def output(self) -> Entry:
        return Entry(self.activation or self.layer)

    @property
    def _name(self) -> str:
        return "+".join(node.name for node in self.nodes)

    @property
    def _geometry(self) -> tuple[tuple[int, int], ...]:
        """Kernel, stride, dilation and padding."""
        p = self.layer.attributes
        return p.kernel, p.stride or (1, 1), p.dilate or (1, 1), p.pad or (0, 0)

    def prepare(self, b: Builder) -> None:
        """Say what halos this layer needs."""
        data, out = self.layer.inputs[0], Entry(self.layer)
        kernel, stride, dilate, pad = self._geometry
        before = b.halo.get(data, (0, 0))
        b.halo[data] = (max(before[0], pad[0]), max(before[1], pad[1]))
        if b.is_train:
            size, result = b.shape(data)[2:], b.shape(out)[2:]
            b.gradient_halo[out] = (
                gradient_halo(
                    size[0], result[0], kernel[0], stride[0], dilate[0], pad[0]
                ),
                gradient_halo(
                    size[1], result[1], kernel[1], stride[1], dilate[1], pad[1]
                ),
            )

    def forward(self, b: Builder) -> None:
        kernel, stride, dilate, pad = self._geometry
        data, weight = self.layer.inputs[:2]
        source, target = b.image(data), b.output_image(self.output)
        b.define(self.output, target)
        panels = self._pack(
            b, False, (0, 1, kernel[0]), (0, 1, kernel[1]), f"{weight.name}.panels"
        )
        statistics, pivot = self._sums(b, target)
        no_bias = self.layer.attributes.no_bias
        images, filters, height, width = target.shape
        b.kernel(
            "conv",
            self._name,
            ("y", "statistics") if statistics else ("y",),
            self._cost(b),
            **source.fields("x", -pad[0], -pad[1]),
            **target.fields("y"),
            images=images,
            height=height,
            width=width,
            stride_h=stride[0],
            stride_w=stride[1],
            dilate_h=dilate[0],
            dilate_w=dilate[1],
            kernel_h=kernel[0],
            kernel_w=kernel[1],
            in_channels=source.shape[1],
            out_channels=filters,
            panels=panels.at,
            bias=0 if no_bias else b.dense(self.layer.inputs[2]).at,
            statistics=0 if statistics is None else statistics.at,
            pivot=0 if pivot is None else pivot.at,
            epilogue=int(code(self.activation)),
            accumulate=0,
        )

    def _sums(self, b: Builder, target: Image) -> tuple[Dense | None, Dense | None]:
        if self.statistics is None:
            return None, None
        shape = (2 * padded(target.shape[1]),)
        sums = b.new_dense(f"{self._name}.statistics", shape, "float64")
        self.statistics.sums.append(sums.buffer)
        b.kernel(
            "fill",
            self._name,
            ("y",),
            cost.ROW,
            y=sums.at,
            bytes=sums.buffer.nbytes,
        )
        return sums, b.dense(self.statistics.pivot)

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
        kernel, stride, dilate, pad = self._geometry
        data, weight = self.layer.inputs[:2]
        source = b.image(data)
        images, filters, height, width = dz.shape
        channels = source.shape[1]
        scratch = b.new_dense(
            f"{self._name}.scratch",
            (conv_weight_scratch(channels, filters, kernel[0] * kernel[1]),),
            "float32",
        )
        before = b.gradients.accumulator(weight)
        target = before if isinstance(before, Dense) else b.gradients.fresh(weight)
        b.kernel(
            "conv_weight_gradient",
            self._name,
            ("gradient", "scratch"),
            self._cost(b),
            **source.fields("x", -pad[0], -pad[1]),
            **dz.fields("dy"),
            images=images,
            height=height,
            width=width,
            stride_h=stride[0],
            stride_w=stride[1],
            dilate_h=dilate[0],
            dilate_w=dilate[1],
            kernel_h=kernel[0],
            kernel_w=kernel[1],
            in_channels=channels,
            out_channels=filters,
            gradient=target.at,
            scratch=scratch.at,
            accumulate=int(target is before),
        )
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
        kernel, stride, dilate, pad = self._geometry
        data, weight = self.layer.inputs[:2]
        images, channels, height, width = b.shape(data)
        rows = taps(height, kernel[0], stride[0], dilate[0], pad[0])
        columns = taps(width, kernel[1], stride[1], dilate[1], pad[1])
        before = b.gradients.accumulator(data)
        adds = isinstance(before, Image)
        target = before if isinstance(before, Image) else b.gradients.fresh_image(data)
        covered = all(c.count for c in (*rows, *columns))
        if not covered and not adds:
            b.kernel(
                "fill",
                self._name,
                ("y",),
                cost.floats(images * target.image),
                y=target.at(-target.halo[0], -target.halo[1]),
                bytes=target.buffer.nbytes,
            )
        for i, h in enumerate(rows):
            for j, w in enumerate(columns):
                if not h.count or not w.count:
                    continue
                panels = self._pack(
                    b,
                    True,
                    (h.start, h.step, h.count),
                    (w.start, w.step, w.count),
                    f"{weight.name}.flipped{i}{j}",
                )
                fields = target.fields("y", h.first, w.first)
                fields["y_row"] = target.row * stride[0]
                fields["y_pixel"] = target.pixel * stride[1]
                b.kernel(
                    "conv",
                    self._name,
                    ("y",),
                    self._cost(b) / (len(rows) * len(columns)),
                    **dz.fields("x", h.read, w.read),
                    **fields,
                    images=images,
                    height=h.positions,
                    width=w.positions,
                    stride_h=1,
                    stride_w=1,
                    dilate_h=dilate[0],
                    dilate_w=dilate[1],
                    kernel_h=h.count,
                    kernel_w=w.count,
                    in_channels=dz.shape[1],
                    out_channels=channels,
                    panels=panels.at,
                    bias=0,
                    statistics=0,
                    pivot=0,
                    epilogue=0,
                    accumulate=int(adds),
                )
        if not adds:
            b.gradients.contribute(data, target)

    def _pack(
        self,
        b: Builder,
        transpose: bool,
        rows: tuple[int, int, int],
        columns: tuple[int, int, int],
        name: str,
    ) -> Dense:
        """Some taps of the weight, as the kernel reads them."""
        weight = self.layer.inputs[1]
        filters, channels, height, width = b.shape(weight)
        inner, outer = (filters, channels) if transpose else (channels, filters)
        size = conv_panels_size(inner, outer, rows[2] * columns[2])
        panels = b.new_dense(name, (size,), "float32")
        section: Section | None = None
        if weight in b.parameters:
            section, panels.buffer.segment = "pack", "packed"
        b.kernel(
            "conv_pack",
            self._name,
            ("panels",),
            cost.floats(2 * size),
            section,
            weight=b.dense(weight).at,
            panels=panels.at,
            out_channels=filters,
            in_channels=channels,
            kernel_h=height,
            kernel_w=width,
            transpose=int(transpose),
            h_start=rows[0],
            h_step=rows[1],
            h_count=rows[2],
            w_start=columns[0],
            w_step=columns[1],
            w_count=columns[2],
        )
        return panels

    def _cost(self, b: Builder) -> float:
        images, _, height, width = b.shape(Entry(self.layer))
        filters, channels, rows, columns = b.shape(self.layer.inputs[1])
        return cost.multiply_adds(
            images * height * width * filters * channels * rows * columns
        )
