"""Products of two arrays, sums and products with a number, and constants."""

from __future__ import annotations

from dataclasses import dataclass

from runtime.devices.cpu import cost
from runtime.devices.cpu.elementwise import elementwise
from runtime.graph.build import Builder
from runtime.graph.draft import Dense, Form
from runtime.graph.ir import Entry, Node
from runtime.kernels.cpu.table import WithNumber

_WITH_NUMBER = {
    "_plus_scalar": WithNumber.PLUS,
    "_minus_scalar": WithNumber.MINUS,
    "_rminus_scalar": WithNumber.FROM,
    "_mul_scalar": WithNumber.TIMES,
}
# What the gradient is multiplied by; of a product it is the number.
_SLOPES = {WithNumber.PLUS: 1.0, WithNumber.MINUS: 1.0, WithNumber.FROM: -1.0}
_CONSTANTS = {"_zeros": 0.0, "_ones": 1.0}


@dataclass(frozen=True, eq=False)
class MultiplyStep:
    """The product of two arrays of one shape."""

    node: Node

    @property
    def nodes(self) -> tuple[Node, ...]:
        return (self.node,)

    def _are_images(self, b: Builder) -> bool:
        return all(b.has_image(entry) for entry in self.node.inputs)

    def _input(self, b: Builder, position: int) -> Form:
        entry = self.node.inputs[position]
        return b.image(entry) if self._are_images(b) else b.dense(entry)

    def forward(self, b: Builder) -> None:
        output = Entry(self.node)
        x, z = self._input(b, 0), self._input(b, 1)
        images = self._are_images(b)
        y: Form = b.output_image(output) if images else b.output(output)
        b.define(output, y)
        elementwise(b, "multiply", self.node.name, "y", {"a": x, "b": z, "y": y})

    def backward(self, b: Builder) -> None:
        book, output = b.gradients, Entry(self.node)
        images = self._are_images(b)
        for position, entry in enumerate(self.node.inputs):
            if not book.wanted(entry):
                continue
            dy = book.image(output) if images else book.dense(output)
            if dy is None:
                return
            dx: Form = book.fresh_image(entry) if images else book.fresh(entry)
            other = self._input(b, 1 - position)
            forms: dict[str, Form] = {"a": dy, "b": other, "y": dx}
            elementwise(b, "multiply", self.node.name, "y", forms)
            book.contribute(entry, dx)


@dataclass(frozen=True, eq=False)
class WithNumberStep:
    """An array with the same number for all elements."""

    node: Node

    @classmethod
    def knows(cls, node: Node) -> bool:
        return node.operator is not None and node.operator.name in _WITH_NUMBER

    @property
    def nodes(self) -> tuple[Node, ...]:
        return (self.node,)

    @property
    def _kind(self) -> WithNumber:
        assert self.node.operator is not None
        return _WITH_NUMBER[self.node.operator.name]

    def forward(self, b: Builder) -> None:
        source, output = b.dense(self.node.inputs[0]), Entry(self.node)
        target = b.output(output)
        b.define(output, target)
        self._emit(b, source, target, self._kind, self.node.attributes.scalar)

    def backward(self, b: Builder) -> None:
        source, book = self.node.inputs[0], b.gradients
        dy = book.dense(Entry(self.node))
        if dy is None or not book.wanted(source):
            return
        slope = _SLOPES.get(self._kind, self.node.attributes.scalar)
        if slope == 1:
            book.contribute(source, dy, owned=False)
            return
        target = book.fresh(source)
        self._emit(b, dy, target, WithNumber.TIMES, slope)
        book.contribute(source, target)

    def _emit(
        self, b: Builder, x: Dense, y: Dense, kind: WithNumber, number: float
    ) -> None:
        b.kernel(
            "with_number",
            self.node.name,
            ("y",),
            cost.floats(2 * x.size),
            x=x.at,
            y=y.at,
            n=x.size,
            kind=int(kind),
            number=float(number),
        )


@dataclass(frozen=True, eq=False)
class ConstantStep:
    """An array that is made of one number."""

    node: Node

    @classmethod
    def knows(cls, node: Node) -> bool:
        return node.operator is not None and node.operator.name in _CONSTANTS

    @property
    def nodes(self) -> tuple[Node, ...]:
        return (self.node,)

    def forward(self, b: Builder) -> None:
        assert self.node.operator is not None
        output = Entry(self.node)
        target = b.output(output)
        b.define(output, target)
        b.kernel(
            "set_value",
            self.node.name,
            ("y",),
            cost.floats(target.size),
            y=target.at,
            count=target.size,
            value=_CONSTANTS[self.node.operator.name],
        )

    def backward(self, b: Builder) -> None:
        """Nothing that it depends on."""
