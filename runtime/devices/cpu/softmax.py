"""SoftmaxOutput over rows, as rows of `softmax` and `softmax_output_backward`."""

from __future__ import annotations

from dataclasses import dataclass

from runtime.devices.cpu import cost
from runtime.graph.build import Builder
from runtime.graph.ir import Entry, Node

_NORMALIZATIONS = {"null": 0, "batch": 1, "valid": 2}


@dataclass(frozen=True, eq=False)
class SoftmaxStep:
    """One loss head."""

    node: Node

    @property
    def nodes(self) -> tuple[Node, ...]:
        return (self.node,)

    def forward(self, b: Builder) -> None:
        output = Entry(self.node)
        source, target = b.dense(self.node.inputs[0]), b.output(output)
        b.define(output, target)
        rows, classes = target.shape
        b.kernel(
            "softmax",
            self.node.name,
            ("y",),
            cost.floats(8 * rows * classes),
            x=source.at,
            y=target.at,
            rows=rows,
            classes=classes,
        )

    def backward(self, b: Builder) -> None:
        data, label = self.node.inputs
        if not b.gradients.wanted(data):
            return
        p = self.node.attributes
        value = b.dense(Entry(self.node))
        rows, classes = value.shape
        target = b.gradients.fresh(data)
        b.kernel(
            "softmax_output_backward",
            self.node.name,
            ("dx",),
            cost.floats(3 * rows * classes),
            y=value.at,
            label=b.dense(label).at,
            dx=target.at,
            rows=rows,
            classes=classes,
            grad_scale=float(p.grad_scale),
            use_ignore=int(p.use_ignore),
            ignore_label=float(p.ignore_label),
            smooth_alpha=float(p.smooth_alpha),
            normalization=_NORMALIZATIONS[p.normalization],
            batch=rows,
        )
        b.gradients.contribute(data, target)
