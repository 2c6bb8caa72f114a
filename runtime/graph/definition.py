"""The step that works for every node: one row with its NumPy definition.

Next: `runtime.graph.gradient`.
"""

from __future__ import annotations

from dataclasses import dataclass

from runtime.graph.build import Builder
from runtime.graph.draft import Csr, DefinitionDraft, Dense, RowSparse
from runtime.graph.ir import Entry, Node
from runtime.graph.registry import Operator


@dataclass(frozen=True, eq=False)
class DefinitionStep:
    """Runs one operator by its definition and its gradient rule."""

    node: Node

    @property
    def nodes(self) -> tuple[Node, ...]:
        """The one node."""
        return (self.node,)

    @property
    def _operator(self) -> Operator:
        assert self.node.operator is not None
        return self.node.operator

    def _entries(self) -> list[Entry]:
        return [Entry(self.node, i) for i in range(len(self.node.output_names))]

    def forward(self, b: Builder) -> None:
        """One row with the definition; none where the output is a view."""
        node = self.node
        if self._operator.is_view:
            source = b.dense(node.inputs[0])
            first = Entry(node, 0)
            b.define(first, source.view(b.shape(first)))
            return
        outputs: list[Csr | Dense] = [
            b.new_csr(entry) if entry in b.storage.csr else b.output(entry)
            for entry in self._entries()
        ]
        inputs = [self._input(b, i) for i in range(len(node.inputs))]
        for entry, form in zip(self._entries(), outputs, strict=True):
            b.define(entry, form)
        if b.is_train:
            outputs += [b.next_auxiliary(entry) for entry in node.auxiliary_inputs]
        b.emit(
            DefinitionDraft(
                self._operator.name,
                node.name,
                tuple(inputs),
                tuple(outputs),
                position=b.positions[node],
                attributes=node.text,
                is_train=b.is_train,
            )
        )

    def _input(self, b: Builder, position: int, backward: bool = False) -> Csr | Dense:
        """An input as the definition, or the gradient rule, takes it."""
        entry, operator = self.node.inputs[position], self._operator
        names = operator.input_names(self.node.attributes)
        # Elementwise slopes are for arrays.
        takes_csr = not (backward and operator.keeps_zeros)
        if takes_csr and names[position] in operator.csr_inputs:
            return b.csr_or_dense(entry)
        return b.dense(entry)

    def backward(self, b: Builder) -> None:
        """One row with the gradient rule, if a gradient is wanted and there is one."""
        node, operator, book = self.node, self._operator, b.gradients
        outputs = self._entries()
        differentiable = len(node.inputs) - len(node.auxiliary_inputs)
        names = operator.input_names(node.attributes)
        targets = [
            entry if book.wanted(entry) and name not in operator.no_gradient else None
            for entry, name in zip(
                node.inputs[:differentiable], names[:differentiable], strict=True
            )
        ]
        rows = book.row_sparse
        grads_out: list[Dense | RowSparse | None] = [
            rows.sum(entry) if entry in rows else book.dense(entry) for entry in outputs
        ]
        is_loss = operator.ignores_head_gradient(node.attributes)
        if not any(targets) or (not is_loss and not any(grads_out)):
            return
        if operator.shares_gradient or (operator.is_view and operator.backward):
            shared = grads_out[0]
            assert isinstance(shared, Dense)
            for entry in filter(None, targets):
                book.contribute(entry, shared.view(b.shape(entry)), owned=False)
            return
        if operator.backward is None:
            return
        saved = operator.saved_for(node.attributes)
        grads_in: list[Dense | RowSparse | None] = []
        taken: set[Entry] = set()
        for target in targets:
            # An input that stands twice gets two arrays, or the second would
            # overwrite the first.
            if target is None:
                grads_in.append(None)
            elif target in rows:
                grads_in.append(rows.fresh(target))
            elif target in taken:
                grads_in.append(
                    b.new_dense(target.name, b.shape(target), b.dtype(target))
                )
            else:
                grads_in.append(book.fresh(target))
                taken.add(target)
        b.emit(
            DefinitionDraft(
                operator.name,
                node.name,
                tuple(
                    self._input(b, i, backward=True) if i in saved.inputs else None
                    for i in range(len(node.inputs))
                ),
                tuple(
                    b.dense(entry) if i in saved.outputs else None
                    for i, entry in enumerate(outputs)
                ),
                backward=True,
                position=b.positions[node],
                attributes=node.text,
                is_train=True,
                grads_out=tuple(grads_out),
                grads_in=tuple(grads_in),
            )
        )
        for target, grad in zip(targets, grads_in, strict=True):
            if target is None or grad is None:
                continue
            if isinstance(grad, RowSparse):
                rows.contribute(target, grad)
            else:
                book.contribute(target, grad)
