"""CSR inputs of a program in a worker process: shared memory of their own.

How many elements a matrix has varies from batch to batch, so that a plan has no place
for it. Each input has a block for every slot instead, which is replaced by a larger one
when a matrix does not fit: the worker is shown the new one, and nothing is planned
anew. What was written stays there when the worker dies.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

from numpy.typing import NDArray

from runtime.graph.plan import CsrTensor, Layout
from runtime.transport.shared_memory import SharedMemory

_ROOM = 1.5  # of a new block, by what it must hold at once: few blocks, bounded waste


class CsrBlock:
    """Shared memory that holds one CSR matrix, as either process sees it.

    Args:
        tensor: What belongs here.
        memory: At least `nbytes_of` the matrices that are written to it.
    """

    def __init__(self, tensor: CsrTensor, memory: SharedMemory) -> None:
        self.memory = memory
        self._tensor = tensor

    @staticmethod
    def nbytes_of(tensor: CsrTensor, elements: int, index: int) -> int:
        """What a matrix takes of so many elements, with indexes of so many bytes."""
        return _layout(tensor, elements, index).nbytes

    def write(self, matrix: Any) -> None:
        """Copy a matrix of the tensor's shape and dtype that has room here."""
        self._header[:] = matrix.nnz, matrix.indices.dtype.itemsize
        for name, part in self._parts().items():
            part[...] = getattr(matrix, name)[: len(part)]  # it may have spare room

    def read(self) -> Any:
        """The matrix, over this memory."""
        parts = self._parts()
        # Here, since only those who have CSR inputs need SciPy.
        sparse = import_module("scipy.sparse")
        return sparse.csr_matrix(
            (parts["data"], parts["indices"], parts["indptr"]),
            shape=self._tensor.shape,
        )

    @property
    def _header(self) -> NDArray[Any]:
        """How many elements, and bytes of an index."""
        words: NDArray[Any] = self.memory.data[:16].view("int64")
        return words

    def _parts(self) -> dict[str, NDArray[Any]]:
        data, layout = self.memory.data, _layout(self._tensor, *map(int, self._header))
        return {
            name: data[t.address.offset : t.address.offset + t.nbytes].view(t.dtype)
            for name, t in layout.tensors.items()
            if name != "header"
        }


class CsrInputs:
    """The parent's side: all blocks of a program.

    Args:
        tensors: The CSR inputs.
        show: Lets the worker use a block for an input in a slot from now on.

    Attributes:
        blocks: By input and slot.
    """

    def __init__(
        self,
        tensors: Mapping[str, CsrTensor],
        show: Callable[[str, int, CsrBlock], None],
    ) -> None:
        self.blocks: dict[tuple[str, int], CsrBlock] = {}
        self._tensors = tensors
        self._show = show

    def write(self, name: str, slot: int, value: Any) -> Any:
        """Write a matrix while the worker does nothing; gives it over the memory.

        Raises:
            MemoryError: there is not enough for it.
        """
        tensor = self._tensors[name]
        matrix = value.astype(tensor.dtype, copy=False)
        index = matrix.indices.dtype.itemsize
        wanted = CsrBlock.nbytes_of(tensor, matrix.nnz, index)
        if not self._has_room(name, slot, wanted):
            most = CsrBlock.nbytes_of(tensor, math.prod(tensor.shape), index)
            nbytes = max(wanted, min(most, int(_ROOM * wanted)))
            try:
                self._replace(name, slot, nbytes)
            except MemoryError as error:
                error.add_note(f"for `{name}`, a CSR input of {matrix.nnz} elements")
                raise
        block = self.blocks[name, slot]
        block.write(matrix)
        return block.read()

    def close(self) -> None:
        """Give up all memory."""
        for block in self.blocks.values():
            block.memory.close()
        self.blocks = {}

    def _has_room(self, name: str, slot: int, nbytes: int) -> bool:
        block = self.blocks.get((name, slot))
        return block is not None and nbytes <= block.memory.nbytes

    def _replace(self, name: str, slot: int, nbytes: int) -> None:
        if (name, slot) in self.blocks:
            self.blocks.pop((name, slot)).memory.close()
        block = CsrBlock(self._tensors[name], SharedMemory(nbytes))
        self.blocks[name, slot] = block  # known to who takes over from a dead worker
        try:
            self._show(name, slot, block)
        except BaseException:
            self.blocks.pop((name, slot)).memory.close()
            raise


def _layout(tensor: CsrTensor, elements: int, index: int) -> Layout:
    kind = f"int{8 * index}"
    return Layout.pack(
        "csr",
        [
            ("header", (2,), "int64"),
            ("indptr", (tensor.shape[0] + 1,), kind),
            ("indices", (elements,), kind),
            ("data", (elements,), tensor.dtype),
        ],
    )
