"""SoftmaxOutput over rows, as rows of `softmax` and `softmax_output_backward`."""

from __future__ import annotations

from dataclasses import dataclass

from runtime.devices.cpu import cost
from runtime.graph.build import Builder
from runtime.graph.draft import At, Dense
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
        self.normalize(b, source, target)

    def normalize(self, b: Builder, source: Dense, target: Dense) -> None:
        """Emit the forward; target may be source."""
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
        data = self.node.inputs[0]
        if not b.gradients.wanted(data):
            return
        target = b.gradients.fresh(data)
        self.slope(b, target, 0)
        b.gradients.contribute(data, target)

    def slope(
        self,
        b: Builder,
        target: Dense,
        first: int,
        sums: At | None = None,
        add: bool = False,
    ) -> None:
        """Emit the gradient for the classes from `first` on.

        Args:
            b: Where to.
            target: Rows of as many classes as are asked for.
            first: The first class.
            sums: Place for the sum of these rows.
            add: Add to what is there instead.
        """
        p = self.node.attributes
        value = b.dense(Entry(self.node))
        (rows, classes), count = value.shape, target.shape[1]
        b.kernel(
            "softmax_output_backward",
            self.node.name,
            ("dx", "sums"),
            cost.floats(3 * rows * count),
            y=value.at,
            label=b.dense(self.node.inputs[1]).at,
            dx=target.at,
            dx_row=count,
            rows=rows,
            classes=classes,
            first=first,
            count=count,
            sums=0 if sums is None else sums,
            accumulate=int(add),
            grad_scale=float(p.grad_scale),
            use_ignore=int(p.use_ignore),
            ignore_label=float(p.ignore_label),
            smooth_alpha=float(p.smooth_alpha),
            normalization=_NORMALIZATIONS[p.normalization],
            batch=rows,
        )
