"""Reverse mode: which values need a gradient, and the sums that make it up.

Steps are asked for their backward rows in reverse order, so that when a step looks
for the gradient of its output, all users have contributed. Contributions are added in
that order, always: sums of gradients are deterministic. A contribution that nobody
else reads (*owned*) is added to in place.

Reverse accumulation as in Griewank and Walther, "Evaluating Derivatives", 2008,
chapter 3.

Next: `runtime.graph.passes.memory` (`runtime.graph.row_sparse_gradients` for sums of
rows).
"""

from __future__ import annotations

from collections.abc import Mapping

from runtime.graph.build import Builder
from runtime.graph.draft import Buffer, Dense, Form, Image
from runtime.graph.ir import Entry, Graph
from runtime.graph.plan import Tensor
from runtime.graph.row_sparse_gradients import RowSparseGradients


class Gradients:
    """The gradients of one plan, by value.

    Args:
        builder: Where rows of sums and conversions go.
        places: Tensor at the face for each variable whose gradient is requested.
        add: Those of them whose request is "add".
        heads: Tensor at the face for each output that needs a head gradient.
        row_sparse: The book of the gradients that are row-sparse; none is here.
    """

    def __init__(
        self,
        builder: Builder,
        places: Mapping[Entry, Tensor],
        add: frozenset[Entry],
        heads: Mapping[Entry, Tensor],
        row_sparse: RowSparseGradients,
    ) -> None:
        self._b = builder
        self.row_sparse = row_sparse
        requested = frozenset({*places, *row_sparse.places})
        self._needed = needing_gradient(builder.graph, requested)
        self._places = {
            entry: Dense(
                Buffer(f"{entry.name}.gradient", tensor.nbytes, place=tensor),
                tensor.shape,
                tensor.dtype,
            )
            for entry, tensor in places.items()
        }
        self._sums: dict[Entry, Form] = {}
        self._owned: set[Entry] = set()
        self._heads = {
            entry: Dense(
                Buffer(f"{entry.name}.head", tensor.nbytes, place=tensor),
                tensor.shape,
                tensor.dtype,
            )
            for entry, tensor in heads.items()
        }
        for entry in add:
            self._sums[entry] = self._places[entry]
            self._owned.add(entry)

    def start(self) -> None:
        """Begin every sum with its head gradient."""
        for entry, head in self._heads.items():
            self.contribute(entry, head, owned=False)

    def wanted(self, entry: Entry) -> bool:
        """Whether a gradient of this value has to be made at all."""
        return entry in self._needed

    def has_image(self, entry: Entry) -> bool:
        """Whether the gradient stands as an image now."""
        return isinstance(self._sums.get(entry), Image)

    def dense(self, entry: Entry) -> Dense | None:
        """The sum of all contributions so far, row-major; None stands for zero."""
        form = self._sums.get(entry)
        if isinstance(form, Image):
            target = self._b.new_dense(
                f"{entry.name}.gradient", form.shape, self._b.dtype(entry)
            )
            native = self._b.native
            assert native is not None
            native.from_image(self._b, form, target, entry.node.name)
            self._sums[entry] = target
            self._owned.add(entry)
            return target
        return form

    def image(self, entry: Entry) -> Image | None:
        """The sum of all contributions so far as an image with the halo needed."""
        form = self._sums.get(entry)
        if form is None:
            return None
        halo = self._b.gradient_halo.get(entry, (0, 0))
        if isinstance(form, Image) and (halo in ((0, 0), form.halo)):
            return form
        target = self._new_image(entry)
        if isinstance(form, Image):
            self._b.copy(form, target, entry.node.name)
        else:
            native = self._b.native
            assert native is not None
            native.to_image(self._b, form, target, entry.node.name)
        self._sums[entry] = target
        self._owned.add(entry)
        return target

    def fresh(self, entry: Entry) -> Dense:
        """A dense array to write a whole contribution to; then call `contribute`.

        The first contribution to a requested gradient goes straight to the face.
        """
        if entry in self._places and entry not in self._sums:
            return self._places[entry]
        return self._b.new_dense(
            f"{entry.name}.gradient", self._b.shape(entry), self._b.dtype(entry)
        )

    def fresh_image(self, entry: Entry) -> Image:
        """An image to write a whole contribution to; then call `contribute`."""
        return self._new_image(entry)

    def accumulator(self, entry: Entry) -> Form | None:
        """The sum so far, if a row may add to it in place instead of contributing."""
        return self._sums[entry] if entry in self._owned else None

    def contribute(self, entry: Entry, form: Form, owned: bool = True) -> None:
        """Add a contribution; `owned` says that nobody reads `form` afterwards."""
        if entry not in self._needed:
            return
        before = self._sums.get(entry)
        if before is None:
            self._sums[entry] = form
            self._mark(entry, owned)
            return
        if isinstance(before, Dense) and isinstance(form, Image):
            form = self._as_dense(entry, form)
        elif isinstance(before, Image) and isinstance(form, Dense):
            before = self.dense(entry)
            assert before is not None
        if entry in self._owned:
            target = before
        elif isinstance(before, Image):
            target = self._new_image(entry)
        else:
            target = self._b.new_dense(
                f"{entry.name}.gradient", before.shape, before.dtype
            )
        self._b.sum(before, form, target, entry.node.name)
        self._sums[entry] = target
        self._mark(entry, True)

    def finish(self) -> None:
        """Bring every requested gradient to its place; what nothing reached is zero."""
        for entry, place in self._places.items():
            if entry not in self._sums:
                self._b.zero(place, entry.name)
                continue
            found = self.dense(entry)
            assert found is not None
            if found.buffer is not place.buffer:
                self._b.copy(found, place, entry.name)
        self.row_sparse.finish(self.dense)

    def _mark(self, entry: Entry, owned: bool) -> None:
        if owned:
            self._owned.add(entry)
        else:
            self._owned.discard(entry)

    def _new_image(self, entry: Entry) -> Image:
        halo = self._b.gradient_halo.get(entry, (0, 0))
        return self._b.new_image(f"{entry.name}.gradient", self._b.shape(entry), halo)

    def _as_dense(self, entry: Entry, image: Image) -> Dense:
        native = self._b.native
        assert native is not None
        target = self._b.new_dense(
            f"{entry.name}.gradient", image.shape, self._b.dtype(entry)
        )
        native.from_image(self._b, image, target, entry.node.name)
        return target


def needing_gradient(graph: Graph, requested: frozenset[Entry]) -> frozenset[Entry]:
    """Every value on a path from a requested variable to an output."""
    needed = set(requested)
    for node in graph.nodes:
        operator = node.operator
        if operator is None or (operator.backward is None and not _passes(node)):
            continue
        names = operator.input_names(node.attributes)
        auxiliary = len(node.auxiliary_inputs)
        inputs = zip(node.inputs, names, strict=False)
        differentiable = list(inputs)[: len(node.inputs) - auxiliary or None]
        if any(
            entry in needed and name not in operator.no_gradient
            for entry, name in differentiable
        ):
            needed.update(Entry(node, i) for i in range(len(node.output_names)))
    return frozenset(needed)


def _passes(node: object) -> bool:
    operator = getattr(node, "operator", None)
    return bool(operator is not None and operator.shares_gradient)


def required_heads(graph: Graph, needed: frozenset[Entry]) -> tuple[Entry, ...]:
    """Outputs that need a head gradient: not losses, and something depends on them."""
    heads = []
    for entry in dict.fromkeys(graph.outputs):
        operator = entry.node.operator
        if operator is not None and operator.ignores_head_gradient(
            entry.node.attributes
        ):
            continue
        if entry in needed:
            heads.append(entry)
    return tuple(heads)
