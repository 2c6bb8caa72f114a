"""FullyConnected, with an activation behind it, as rows of `gemm`.

y = f(x W^T + b); dx = dz W; dW = dz^T x; db = sum of dz over rows; dz = dy * f'(y).
"""

from __future__ import annotations

from dataclasses import dataclass, field

from runtime.devices.cpu import cost
from runtime.devices.cpu.elementwise import activation_backward
from runtime.devices.cpu.epilogue import code
from runtime.graph.build import Builder, Dense
from runtime.graph.ir import Entry, Node
from runtime.graph.plan import Section
from runtime.kernels.cpu.table import panels_size


@dataclass(frozen=True)
class Masked:
    """Gradients that their producer has multiplied by the activation's derivative.

    A dense layer's data gradient takes the mask of the layer below along, which saves
    a pass over it.
    """

    activated: dict[Entry, Node] = field(default_factory=dict)
    done: set[Entry] = field(default_factory=set)


@dataclass(frozen=True, eq=False)
class DenseStep:
    """One layer."""

    layer: Node
    activation: Node | None
    masked: Masked

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

    def _sizes(self, b: Builder) -> tuple[int, int, int]:
        n, k = b.shape(self.layer.inputs[1])
        size = 1
        for extent in b.shape(self.layer.inputs[0]):
            size *= extent
        return size // k, n, k

    def forward(self, b: Builder) -> None:
        m, n, k = self._sizes(b)
        data, weight = self.layer.inputs[:2]
        panels = self._pack(b, weight, transposed=True)
        target = b.output(self.output)
        b.define(self.output, target)
        bias = 0 if self.layer.attributes.no_bias else b.dense(self.layer.inputs[2]).at
        b.kernel(
            "gemm",
            self._name,
            ("c",),
            cost.multiply_adds(m * n * k),
            a=b.dense(data).at,
            a_row=k,
            a_column=1,
            panels=panels.at,
            c=target.at,
            c_row=n,
            m=m,
            k=k,
            n=n,
            bias=bias,
            mask=0,
            mask_row=0,
            epilogue=int(code(self.activation)),
            accumulate=0,
        )

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

    def _dz(self, b: Builder) -> Dense | None:
        dy = b.gradients.dense(self.output)
        if dy is None or self.activation is None or self.output in self.masked.done:
            return dy
        in_place = b.gradients.accumulator(self.output) is dy
        dz = dy if in_place else b.new_dense(f"{self._name}.dz", dy.shape, dy.dtype)
        activation_backward(b, self.activation, dy, b.dense(self.output), dz)
        return dz

    def _weight_gradient(self, b: Builder, dz: Dense) -> None:
        m, n, k = self._sizes(b)
        data, weight = self.layer.inputs[:2]
        panels = b.new_dense(f"{self._name}.panels", (panels_size(m, k),), "float32")
        b.kernel(
            "pack_panels",
            self._name,
            ("panels",),
            cost.floats(2 * m * k),
            b=b.dense(data).at,
            b_row=k,
            b_column=1,
            panels=panels.at,
            k=m,
            n=k,
        )
        before = b.gradients.accumulator(weight)
        target = before if isinstance(before, Dense) else b.gradients.fresh(weight)
        b.kernel(
            "gemm",
            self._name,
            ("c",),
            cost.multiply_adds(m * n * k),
            a=dz.at,
            a_row=1,
            a_column=n,
            panels=panels.at,
            c=target.at,
            c_row=k,
            m=n,
            k=m,
            n=k,
            bias=0,
            mask=0,
            mask_row=0,
            epilogue=0,
            accumulate=int(target is before),
        )
        if target is not before:
            b.gradients.contribute(weight, target)

    def _bias_gradient(self, b: Builder, dz: Dense) -> None:
        m, n, _ = self._sizes(b)
        bias = self.layer.inputs[2]
        if not b.gradients.wanted(bias):
            return
        before = b.gradients.accumulator(bias)
        target = before if isinstance(before, Dense) else b.gradients.fresh(bias)
        b.kernel(
            "column_sums",
            self._name,
            ("sums",),
            cost.floats(m * n),
            x=dz.at,
            x_row=n,
            sums=target.at,
            m=m,
            n=n,
            accumulate=int(target is before),
        )
        if target is not before:
            b.gradients.contribute(bias, target)

    def _data_gradient(self, b: Builder, dz: Dense) -> None:
        m, n, k = self._sizes(b)
        data, weight = self.layer.inputs[:2]
        panels = self._pack(b, weight, transposed=False)
        before = b.gradients.accumulator(data)
        target = before if isinstance(before, Dense) else b.gradients.fresh(data)
        below = self.masked.activated.get(data)
        alone = below is not None and b.users[data] == 1 and not b.is_output(data)
        if alone:
            self.masked.done.add(data)
        b.kernel(
            "gemm",
            self._name,
            ("c",),
            cost.multiply_adds(m * n * k),
            a=dz.at,
            a_row=n,
            a_column=1,
            panels=panels.at,
            c=target.at,
            c_row=k,
            m=m,
            k=n,
            n=k,
            bias=0,
            mask=b.dense(data).at if alone else 0,
            mask_row=k if alone else 0,
            epilogue=int(code(below)) if alone else 0,
            accumulate=int(target is before),
        )
        if target is not before:
            b.gradients.contribute(data, target)

    def _pack(self, b: Builder, weight: Entry, transposed: bool) -> Dense:
        """The weight in panels: of W^T for the forward, of W for the data gradient."""
        n, k = b.shape(weight)
        rows, columns = (k, n) if transposed else (n, k)
        constant = weight in b.parameters
        panels = b.new_dense(
            f"{weight.name}.panels", (panels_size(rows, columns),), "float32"
        )
        section: Section | None = None
        if constant:
            section, panels.buffer.segment = "pack", "packed"
        b.kernel(
            "pack_panels",
            self._name,
            ("panels",),
            cost.floats(2 * n * k),
            section,
            b=b.dense(weight).at,
            b_row=1 if transposed else k,
            b_column=k if transposed else 1,
            panels=panels.at,
            k=rows,
            n=columns,
        )
        return panels
