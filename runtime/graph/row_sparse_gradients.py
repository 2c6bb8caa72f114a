"""The book of row-sparse gradients: sums of rows, in the order of `Gradients`.

Which gradients are row-sparse is known beforehand (`runtime.graph.storage`), so that
such a sum has row-sparse summands alone. A parameter whose memory is shared with
another graph, where its gradient is row-sparse, keeps that place even if its gradient
is dense here: then all its rows are there.

Next: `runtime.graph.passes.memory`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from runtime.graph.build import Builder
from runtime.graph.draft import Buffer, DefinitionDraft, Dense, RowSparse
from runtime.graph.ir import Entry
from runtime.graph.plan import RowSparseTensor, Tensor


class RowSparseGradients:
    """See the module.

    Args:
        builder: Where rows go.
        places: Where the requested gradients lie at the face.
        add: Those of them whose request is "add".

    Attributes:
        places: The requested gradients.
    """

    def __init__(
        self,
        builder: Builder,
        places: Mapping[Entry, RowSparseTensor],
        add: frozenset[Entry],
    ) -> None:
        self._b = builder
        self.places = {
            entry: RowSparse(
                _placed(f"{entry.name}.gradient_rows", tensor.rows),
                _placed(f"{entry.name}.gradient_values", tensor.values),
            )
            for entry, tensor in places.items()
        }
        self._add = add
        self._sums = {entry: self.places[entry] for entry in add}

    def __contains__(self, entry: Entry) -> bool:
        return entry in self._b.storage.row_sparse

    def sum(self, entry: Entry) -> RowSparse | None:
        """The sum of all contributions so far; None stands for zero."""
        return self._sums.get(entry)

    def fresh(self, entry: Entry) -> RowSparse:
        """A place to write a whole contribution to; then call `contribute`."""
        if entry in self.places and entry not in self._sums:
            return self.places[entry]
        shape, dtype = self._b.shape(entry), self._b.dtype(entry)
        return RowSparse(
            self._b.new_dense(f"{entry.name}.rows", (1 + shape[0],), "int64"),
            self._b.new_dense(f"{entry.name}.values", shape, dtype),
        )

    def contribute(self, entry: Entry, form: RowSparse) -> None:
        """Add a contribution that nobody reads afterwards."""
        before = self._sums.setdefault(entry, form)
        if before is not form:
            self._b.emit(DefinitionDraft("+=", entry.name, (form,), (before,)))

    def finish(self, dense: Callable[[Entry], Dense | None]) -> None:
        """Bring every requested gradient to its place; what nothing reached is zero.

        Args:
            dense: Gives the sum of the contributions that were dense.
        """
        for entry, place in self.places.items():
            whole = None if entry in self else dense(entry)
            if whole is not None:
                kind = "+=" if entry in self._add else "="
                self._b.emit(DefinitionDraft(kind, entry.name, (whole,), (place,)))
            elif entry not in self._sums:
                self._b.emit(DefinitionDraft("0", entry.name, (), (place,)))


def _placed(name: str, tensor: Tensor) -> Dense:
    return Dense(Buffer(name, tensor.nbytes, place=tensor), tensor.shape, tensor.dtype)
