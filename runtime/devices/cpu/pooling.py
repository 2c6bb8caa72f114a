"""Two-dimensional Pooling as rows of `max_pool` and `avg_pool`.

A monotone activation in front of a maximum is moved behind it: the result is the same
and the activation sees a fraction of the elements. Where several elements share the
maximum only because the activation has flattened them, its derivative there is zero.
"""

from __future__ import annotations

from dataclasses import dataclass

from runtime.devices.cpu import cost
from runtime.devices.cpu.epilogue import code
from runtime.graph.build import Builder
from runtime.graph.draft import At, Buffer
from runtime.graph.ir import Entry, Node


@dataclass(frozen=True, eq=False)
class PoolStep:
    """Max, average or sum pooling; only max pooling has an activation."""

    pool: Node
    activation: Node | None = None

    @property
    def nodes(self) -> tuple[Node, ...]:
        return (self.pool,) if self.activation is None else (self.activation, self.pool)

    @property
    def _source(self) -> Entry:
        return (self.activation or self.pool).inputs[0]

    @property
    def _is_max(self) -> bool:
        return bool(self.pool.attributes.pool_type == "max")

    def _index(self, b: Builder) -> Buffer:
        """Where the maxima are: one byte per output element, kept for the backward."""
        output = b.image(Entry(self.pool))
        images, _, height, width = output.shape
        return b.saved(self.pool, "index", images * height * width * output.pixel)

    def _fields(self, b: Builder) -> dict[str, int]:
        p = self.pool.attributes
        images, channels, in_height, in_width = b.shape(self._source)
        _, _, height, width = b.shape(Entry(self.pool))
        whole = p.global_pool
        kernel = (in_height, in_width) if whole else p.kernel
        stride = (1, 1) if whole else p.stride or (1, 1)
        pad = (0, 0) if whole else p.pad or (0, 0)
        return {
            "images": images,
            "height": height,
            "width": width,
            "in_height": in_height,
            "in_width": in_width,
            "channels": channels,
            "kernel_h": kernel[0],
            "kernel_w": kernel[1],
            "stride_h": stride[0],
            "stride_w": stride[1],
            "pad_h": pad[0],
            "pad_w": pad[1],
        }

    def _divisor(self) -> int:
        p = self.pool.attributes
        if p.pool_type == "sum":
            return 2
        return 1 if p.count_include_pad is False else 0

    def forward(self, b: Builder) -> None:
        source = b.image(self._source)
        output = Entry(self.pool)
        target = b.output_image(output)
        b.define(output, target)
        fields = self._fields(b)
        price = cost.floats(source.shape[0] * source.image)
        if self._is_max:
            index = At(self._index(b)) if b.is_train else 0
            b.kernel(
                "max_pool",
                self.pool.name,
                ("y", "index"),
                price,
                **source.fields("x"),
                **target.fields("y"),
                index=index,
                **fields,
                epilogue=int(code(self.activation)),
            )
        else:
            b.kernel(
                "avg_pool",
                self.pool.name,
                ("y",),
                price,
                **source.fields("x"),
                **target.fields("y"),
                **fields,
                divisor_mode=self._divisor(),
            )

    def backward(self, b: Builder) -> None:
        output = Entry(self.pool)
        dy = b.gradients.image(output)
        if dy is None or not b.gradients.wanted(self._source):
            return
        dx = b.gradients.fresh_image(self._source)
        fields = self._fields(b)
        price = cost.floats(2 * dx.shape[0] * dx.image)
        if self._is_max:
            b.kernel(
                "max_pool_backward",
                self.pool.name,
                ("dx",),
                price,
                **dy.fields("dy"),
                index=At(self._index(b)),
                **b.image(output).fields("y"),
                **dx.fields("dx"),
                **fields,
                epilogue=int(code(self.activation)),
            )
        else:
            b.kernel(
                "avg_pool_backward",
                self.pool.name,
                ("dx",),
                price,
                **dy.fields("dy"),
                **dx.fields("dx"),
                **fields,
                divisor_mode=self._divisor(),
            )
        b.gradients.contribute(self._source, dx)
