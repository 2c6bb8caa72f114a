"""BatchNorm over channels, with a residual sum and a relu behind it.

Training: mean and biased variance come from sums (taken where the input is stored, if
a convolution makes it), then y = f((x - mean) * scale + shift + residual) in one pass.
Backward: one pass masks the gradient and sums it, one makes
dx = g * k1 + (x - mean) * k2 + k3 (Ioffe and Szegedy, "Batch Normalization", 2015, with
the sums pulled out).
"""

from __future__ import annotations

from dataclasses import dataclass

from runtime.devices.cpu import cost
from runtime.devices.cpu.convolution import Statistics, residual_of
from runtime.devices.cpu.elementwise import fill
from runtime.devices.cpu.epilogue import code
from runtime.graph.build import Builder
from runtime.graph.draft import At, Dense, Image, optional_fields
from runtime.graph.ir import Entry, Node
from runtime.kernels.cpu.table import padded

_VECTORS = ("mean", "inverse", "scale", "shift")


@dataclass(frozen=True, eq=False)
class BatchNormStep:
    """One layer, and the nodes fused behind it.

    Attributes:
        norm: The BatchNorm node.
        addition: The residual sum behind it, if fused.
        activation: The relu behind that, if fused.
        statistics: Set if a convolution in front takes the sums along.
    """

    norm: Node
    addition: Node | None = None
    activation: Node | None = None
    statistics: Statistics | None = None

    @property
    def nodes(self) -> tuple[Node, ...]:
        chain = (self.norm, self.addition, self.activation)
        return tuple(node for node in chain if node is not None)

    @property
    def output(self) -> Entry:
        return Entry(self.nodes[-1])

    @property
    def _name(self) -> str:
        return "+".join(node.name for node in self.nodes)

    @property
    def _residual(self) -> Entry | None:
        if self.addition is None:
            return None
        return residual_of(self.addition, self.norm)

    def forward(self, b: Builder) -> None:
        x = b.image(self.norm.inputs[0])
        if b.is_train:
            self._finish(b, x)
        else:
            self._scale(b, x)
        residual = self._residual
        source = None if residual is None else b.image(residual)
        target = b.output_image(self.output)
        b.define(self.output, target)
        images, channels, height, width = x.shape
        b.kernel(
            "batch_norm_apply",
            self._name,
            ("y",),
            cost.floats(2 * images * x.image),
            **x.fields("x"),
            **optional_fields("residual", source),
            **target.fields("y"),
            images=images,
            height=height,
            width=width,
            channels=channels,
            mean=self._vector(b, "mean"),
            scale=self._vector(b, "scale"),
            shift=self._vector(b, "shift"),
            epilogue=int(code(self.activation)),
        )

    def _finish(self, b: Builder, x: Image) -> None:
        p = self.norm.attributes
        _, gamma, beta, mean, variance = self.norm.inputs
        images, channels, height, width = x.shape
        b.kernel(
            "batch_norm_finish",
            self._name,
            (*_VECTORS, "next_mean", "next_variance"),
            cost.floats(8 * channels),
            statistics=self._sums(b, x),
            pivot=b.dense(mean).at,
            gamma=b.dense(gamma).at,
            beta=b.dense(beta).at,
            fix_gamma=int(p.fix_gamma),
            eps=float(p.eps),
            momentum=float(p.momentum),
            count=images * height * width,
            channels=channels,
            **{name: self._vector(b, name) for name in _VECTORS},
            moving_mean=b.dense(mean).at,
            moving_variance=b.dense(variance).at,
            next_mean=b.next_auxiliary(mean).at,
            next_variance=b.next_auxiliary(variance).at,
        )

    def _sums(self, b: Builder, x: Image) -> At:
        if self.statistics is not None:
            return At(self.statistics.sums[-1])
        images, channels, height, width = x.shape
        shape = (2 * padded(channels),)
        sums = b.new_dense(f"{self._name}.statistics", shape, "float64")
        fill(b, self._name, sums.buffer)
        b.kernel(
            "batch_norm_statistics",
            self._name,
            ("statistics",),
            cost.floats(images * x.image),
            **x.fields("x"),
            images=images,
            height=height,
            width=width,
            channels=channels,
            pivot=b.dense(self.norm.inputs[3]).at,
            statistics=sums.at,
        )
        return sums.at

    def _scale(self, b: Builder, x: Image) -> None:
        p = self.norm.attributes
        _, gamma, beta, mean, variance = self.norm.inputs
        b.kernel(
            "batch_norm_scale",
            self._name,
            _VECTORS,
            cost.floats(8 * x.shape[1]),
            gamma=b.dense(gamma).at,
            beta=b.dense(beta).at,
            fix_gamma=int(p.fix_gamma),
            eps=float(p.eps),
            moving_mean=b.dense(mean).at,
            moving_variance=b.dense(variance).at,
            channels=x.shape[1],
            **{name: self._vector(b, name) for name in _VECTORS},
        )

    def backward(self, b: Builder) -> None:
        book = b.gradients
        data, gamma, beta = self.norm.inputs[:3]
        dy = book.image(self.output)
        if dy is None:
            return
        x = b.image(data)
        images, channels, height, width = x.shape
        g = dy
        if self.activation is not None and book.accumulator(self.output) is not dy:
            g = b.new_image(f"{self._name}.masked", dy.shape)
        sums = b.new_dense(f"{self._name}.sums", (2 * x.pixel,), "float64")
        fill(b, self._name, sums.buffer)
        masks = self.activation is not None
        y = b.image(self.output) if masks else None
        b.kernel(
            "batch_norm_backward_sums",
            self._name,
            ("masked", "sums") if masks else ("sums",),
            cost.floats(3 * images * x.image),
            **dy.fields("dy"),
            **optional_fields("y", y),
            **x.fields("x"),
            **optional_fields("masked", g if masks else None),
            images=images,
            height=height,
            width=width,
            channels=channels,
            mean=self._vector(b, "mean"),
            sums=sums.at,
            epilogue=int(code(self.activation)),
        )
        self._parameter_gradients(b, x, sums, gamma, beta)
        if book.wanted(data):
            self._data_gradient(b, x, g)
        residual = self._residual
        if residual is not None and book.wanted(residual):
            book.contribute(residual, g)

    def _parameter_gradients(
        self, b: Builder, x: Image, sums: Dense, gamma: Entry, beta: Entry
    ) -> None:
        book = b.gradients
        images, channels, height, width = x.shape
        targets: dict[str, At | int] = {}
        fresh: list[tuple[Entry, Dense]] = []
        for name, entry in (("gamma_gradient", gamma), ("beta_gradient", beta)):
            if not book.wanted(entry):
                targets[name] = 0
                continue
            # The kernel has one flag for both, so sums go through `contribute`.
            target = (
                book.fresh(entry)
                if book.accumulator(entry) is None
                else b.new_dense(f"{entry.name}.part", b.shape(entry), "float32")
            )
            fresh.append((entry, target))
            targets[name] = target.at
        b.kernel(
            "batch_norm_backward_finish",
            self._name,
            (*(name for name, at in targets.items() if at), "k1", "k2", "k3"),
            cost.floats(8 * channels),
            sums=sums.at,
            inverse=self._vector(b, "inverse"),
            gamma=b.dense(gamma).at,
            fix_gamma=int(self.norm.attributes.fix_gamma),
            count=images * height * width,
            channels=channels,
            **targets,
            **{name: self._vector(b, name) for name in ("k1", "k2", "k3")},
            accumulate=0,
        )
        for entry, target in fresh:
            book.contribute(entry, target)

    def _data_gradient(self, b: Builder, x: Image, g: Image) -> None:
        book, data = b.gradients, self.norm.inputs[0]
        images, channels, height, width = x.shape
        before = book.accumulator(data)
        adds = isinstance(before, Image)
        dx = before if isinstance(before, Image) else book.fresh_image(data)
        b.kernel(
            "batch_norm_backward_apply",
            self._name,
            ("dx",),
            cost.floats(3 * images * x.image),
            **x.fields("x"),
            **g.fields("g"),
            **dx.fields("dx"),
            images=images,
            height=height,
            width=width,
            channels=channels,
            mean=self._vector(b, "mean"),
            **{name: self._vector(b, name) for name in ("k1", "k2", "k3")},
            accumulate=int(adds),
        )
        if not adds:
            book.contribute(data, dx)

    def _vector(self, b: Builder, name: str) -> At:
        channels = padded(b.shape(self.norm.inputs[0])[1])
        return At(b.saved(self.norm, name, 4 * channels))
