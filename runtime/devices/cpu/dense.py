"""FullyConnected, with an activation behind it, as rows of `gemm`.

y = f(x W^T + b); dx = dz W; dW = dz^T x; db = sum of dz over rows; dz = dy * f'(y).
"""

from __future__ import annotations

from dataclasses import dataclass, field

from runtime.devices.cpu import cost
from runtime.devices.cpu.elementwise import activation_backward
from runtime.devices.cpu.epilogue import code
from runtime.devices.cpu.matrix import Matrix, Panels, multiply, pack, panels_in_place
from runtime.graph.build import Builder
from runtime.graph.draft import Dense
from runtime.graph.ir import Entry, Node

# So many rows of a gradient read a weight as fast where it lies as from panels.
_FEW_ROWS = 64
# Packing a smaller weight takes less time than what spares it.
_LARGE_WEIGHT = 16384


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
    def name(self) -> str:
        return "+".join(node.name for node in self.nodes)

    def _sizes(self, b: Builder) -> tuple[int, int, int]:
        n, k = b.shape(self.layer.inputs[1])
        size = 1
        for extent in b.shape(self.layer.inputs[0]):
            size *= extent
        return size // k, n, k

    def data(self, b: Builder) -> Matrix:
        """What it reads, one row for each row of the batch."""
        m, _, k = self._sizes(b)
        return Matrix.of(b.dense(self.layer.inputs[0]), m, k)

    def weight(self, b: Builder) -> Matrix:
        """Its weight, one row for each hidden unit."""
        _, n, k = self._sizes(b)
        return Matrix.of(b.dense(self.layer.inputs[1]), n, k)

    def weight_panels(self, b: Builder, weight: Matrix) -> Panels:
        """Panels of the weight, which are packed only when it has changed."""
        if self.layer.inputs[1] in b.parameters:
            return pack(b, self.name, weight, "pack", "packed")
        return pack(b, self.name, weight)

    def forward(self, b: Builder) -> None:
        target = b.output(self.output)
        b.define(self.output, target)
        self.multiply(b, target)

    def multiply(self, b: Builder, target: Dense) -> None:
        """Emit the forward, to a given place."""
        x, weight = self.data(b), self.weight(b)
        bias = None
        if not self.layer.attributes.no_bias:
            bias = b.dense(self.layer.inputs[2]).at
        # In training the weight changes every time: better to pack what is smaller.
        large = weight.rows * weight.columns >= _LARGE_WEIGHT
        few = x.rows < min(weight.rows, weight.columns)
        transposed = b.is_train and large and few
        if transposed:
            factors = weight, pack(b, self.name, x.transpose)
        else:
            factors = x, self.weight_panels(b, weight.transpose)
        multiply(
            b,
            self.name,
            *factors,
            target.at,
            transposed=transposed,
            bias=bias,
            epilogue=int(code(self.activation)),
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
        dz = dy if in_place else b.new_dense(f"{self.name}.dz", dy.shape, dy.dtype)
        activation_backward(b, self.activation, dy, b.dense(self.output), dz)
        return dz

    def _weight_gradient(self, b: Builder, dz: Dense) -> None:
        m, n, _ = self._sizes(b)
        weight = self.layer.inputs[1]
        panels = pack(b, self.name, self.data(b))
        before = b.gradients.accumulator(weight)
        target = before if isinstance(before, Dense) else b.gradients.fresh(weight)
        multiply(
            b,
            self.name,
            Matrix.of(dz, m, n).transpose,
            panels,
            target.at,
            accumulate=target is before,
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
            self.name,
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
        m, n, _ = self._sizes(b)
        data, weight = self.layer.inputs[0], self.weight(b)
        panels = panels_in_place(weight) if m <= _FEW_ROWS else None
        if panels is None:
            panels = self.weight_panels(b, weight)
        before = b.gradients.accumulator(data)
        target = before if isinstance(before, Dense) else b.gradients.fresh(data)
        below = self.masked.activated.get(data)
        alone = below is not None and b.users[data] == 1 and not b.is_output(data)
        if alone:
            self.masked.done.add(data)
        multiply(
            b,
            self.name,
            Matrix.of(dz, m, n),
            panels,
            target.at,
            mask=b.dense(data).at if alone else None,
            epilogue=int(code(below)) if alone else 0,
            accumulate=target is before,
        )
        if target is not before:
            b.gradients.contribute(data, target)
