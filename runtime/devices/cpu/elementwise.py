"""Elementwise rows over dense arrays and images, and activations as a step."""

from __future__ import annotations

from dataclasses import dataclass

from runtime.devices.cpu import cost
from runtime.devices.cpu.epilogue import code
from runtime.graph.build import Builder
from runtime.graph.draft import At, Buffer, Form, Image
from runtime.graph.ir import Entry, Node


def elementwise(
    b: Builder, kernel: str, node: str, writes: str, forms: dict[str, Form], **more: int
) -> None:
    """Emit an elementwise row over forms of equal shape, all dense or all images.

    Args:
        b: Where to.
        kernel: Its operands are `NAME`, `NAME_outer`, `NAME_middle`.
        node: The node's name.
        writes: The operand that is written.
        forms: The operands.
        more: Further fields.
    """
    first = next(iter(forms.values()))
    if isinstance(first, Image):
        images, _, height, width = first.shape
        counts = (images, height, width * first.pixel)
    else:
        counts = (1, 1, first.size)
    operands: dict[str, At | int] = {}
    for name, form in forms.items():
        operands[name] = form.at() if isinstance(form, Image) else form.at
        operands[f"{name}_outer"] = form.image if isinstance(form, Image) else 0
        operands[f"{name}_middle"] = form.row if isinstance(form, Image) else 0
    outer, middle, inner = counts
    b.kernel(
        kernel,
        node,
        (writes,),
        cost.floats(len(forms) * outer * middle * inner),
        outer=outer,
        middle=middle,
        inner=inner,
        **operands,
        **more,
    )


def fill(b: Builder, node: str, buffer: Buffer) -> None:
    """Emit what zeroes a whole buffer."""
    nbytes = buffer.nbytes
    b.kernel("fill", node, ("y",), cost.floats(nbytes // 4), y=At(buffer), bytes=nbytes)


def activation_backward(b: Builder, node: Node, dy: Form, y: Form, dx: Form) -> None:
    """dx = dy * f'(y); dx may be dy."""
    forms = {"dy": dy, "y": y, "dx": dx}
    elementwise(
        b, "activation_backward", node.name, "dx", forms, epilogue=int(code(node))
    )


@dataclass(frozen=True, eq=False)
class ActivationStep:
    """An activation that nothing carries along."""

    node: Node

    @property
    def nodes(self) -> tuple[Node, ...]:
        return (self.node,)

    def forward(self, b: Builder) -> None:
        source, output = self.node.inputs[0], Entry(self.node)
        x: Form
        y: Form
        if b.has_image(source):
            x, y = b.image(source), b.output_image(output)
        else:
            x, y = b.dense(source), b.output(output)
        b.define(output, y)
        elementwise(
            b,
            "activation",
            self.node.name,
            "y",
            {"x": x, "y": y},
            epilogue=int(code(self.node)),
        )

    def backward(self, b: Builder) -> None:
        source, output = self.node.inputs[0], Entry(self.node)
        book = b.gradients
        if not book.wanted(source):
            return
        dy, y, dx = _matching(b, output, source)
        if dy is None or y is None:
            return
        activation_backward(b, self.node, dy, y, dx)
        book.contribute(source, dx)


@dataclass(frozen=True, eq=False)
class AddStep:
    """The sum of two arrays; its gradient is shared by both."""

    node: Node

    @property
    def nodes(self) -> tuple[Node, ...]:
        return (self.node,)

    def forward(self, b: Builder) -> None:
        output = Entry(self.node)
        left, right = self.node.inputs
        forms: dict[str, Form]
        if b.has_image(left) and b.has_image(right):
            y: Form = b.output_image(output)
            forms = {"a": b.image(left), "b": b.image(right), "y": y}
        else:
            y = b.output(output)
            forms = {"a": b.dense(left), "b": b.dense(right), "y": y}
        b.define(output, y)
        elementwise(b, "add", self.node.name, "y", forms)

    def backward(self, b: Builder) -> None:
        output, book = Entry(self.node), b.gradients
        form = book.image(output) if book.has_image(output) else book.dense(output)
        if form is None:
            return
        for entry in self.node.inputs:
            book.contribute(entry, form, owned=False)


def _matching(
    b: Builder, output: Entry, source: Entry
) -> tuple[Form | None, Form | None, Form]:
    """Gradient and value of an output and a fresh target, in one form."""
    book = b.gradients
    if b.has_image(output):
        return book.image(output), b.image(output), book.fresh_image(source)
    return book.dense(output), b.dense(output), book.fresh(source)
