"""Operators: what one is, and the table where each is registered once.

An operator is described by five things: typed attributes, input and output
names, a shape rule, a NumPy definition and a gradient rule. The definition is
complete: the reference device runs any graph with it. `runtime.ops` holds one
file per family; importing `runtime.ops` fills the table.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from runtime.errors import OperatorError

Array = NDArray[Any]
# A shape may be partly known: 0 stands for an unknown size, None for unknown rank.
PartialShape = tuple[int, ...] | None
Shapes = list[PartialShape]


class RandomSource(Protocol):
    """Counter-based random numbers: a pure function of seed, node, step and row."""

    def uniform(self, shape: tuple[int, ...]) -> NDArray[np.float32]:
        """Numbers in [0, 1); row i depends only on its row in the whole batch."""
        ...

    def generators(self, rows: int) -> Iterator[np.random.Generator]:
        """One for each row, by its row in the whole batch; good until the next one."""
        ...


@dataclass(frozen=True, slots=True)
class Mode:
    """How a definition is being run.

    Attributes:
        is_train: True in a training forward (and its backward).
        random: Numbers for this node and step; the backward sees the same ones.
        state: What `Operator.state` made for this node.
    """

    is_train: bool
    random: RandomSource | None = None
    state: Any = None


class Forward(Protocol):
    """A NumPy definition.

    Writes every array of `outputs` in place (shapes and dtypes as inferred). For an
    operator with auxiliary states `inputs` ends with their current values, and in
    training `outputs` ends with buffers for their next values, which must be written
    too; the definition never changes its inputs.
    """

    def __call__(
        self, p: Any, inputs: Sequence[Array], outputs: Sequence[Array], mode: Mode
    ) -> None: ...


class Backward(Protocol):
    """A gradient rule.

    Writes every array of `grads_in` that is not None; there is one place for each
    input that is not auxiliary. `grads_out` has one place per output: None means zero
    (only for operators of several outputs) or, for a loss head, not given. Of `inputs`
    and `outputs` only those that `Operator.saved` names are given, the others are None.
    """

    def __call__(
        self,
        p: Any,
        grads_out: Sequence[Any],
        inputs: Sequence[Any],
        outputs: Sequence[Any],
        grads_in: Sequence[Any],
        mode: Mode,
    ) -> None: ...


class RowSparseRule(Protocol):
    """Names of the inputs whose gradient is row-sparse.

    The gradient rule is given `runtime.row_sparse.RowSparsePlace` objects for these.

    Args:
        p: The attributes.
        csr: Names of the inputs that are CSR matrices.
        head: Whether the output's gradient is row-sparse; if the answer is none
            without it, the rule can read such a gradient.
    """

    def __call__(self, p: Any, csr: Collection[str], head: bool) -> tuple[str, ...]: ...


@dataclass(frozen=True, slots=True)
class Saved:
    """Positions of the inputs and outputs that a gradient rule reads."""

    inputs: tuple[int, ...] = ()
    outputs: tuple[int, ...] = ()


@dataclass(frozen=True)
class NoAttributes:
    """Attributes of an operator that has none."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Operator:
    """One operator; see the fields. Callables get the parsed attributes first.

    Attributes:
        name: MXNet's name, as it stands in symbol JSON.
        aliases: Other names of the same operator.
        attributes: Frozen dataclass of typed attributes; a field without default is
            required.
        inputs: Input names in order, auxiliary states last; for a variadic operator
            a function of the attributes (`num_args` counts).
        auxiliary: Names of the inputs that are auxiliary states; a function of the
            attributes where they differ.
        outputs: Names of all outputs.
        visible: How many outputs a user sees; None means all.
        shape: (p, input shapes, output shapes) -> refined (inputs, outputs); called
            until nothing changes; raises ShapeError on a conflict.
        dtype: (p, input dtypes, output dtypes) -> refined; None means that all inputs
            and outputs share one dtype.
        forward: The NumPy definition.
        backward: The gradient rule; None means that no gradient flows (zero).
        saved: Which inputs and outputs the gradient rule reads.
        no_gradient: Inputs that never get a gradient (labels, indexes): zero.
        is_loss: True if the backward ignores the gradient of the outputs, so that a
            graph may end here without a head gradient.
        is_view: The first output is the first input under another shape, and so is
            its gradient.
        shares_gradient: The gradient of each input is the output's own gradient.
        is_random: The definition reads `mode.random` when training.
        state: (p, input arrays, device's name) -> what a node keeps in one program from
            one call to the next: `mode.state` in definition and gradient rule.
        variadic: The operator takes any number of inputs, counted by `num_args`.
        parameter_defaults: Hidden attributes of variables made for missing inputs,
            such as {"moving_var": {"__init__": '["one", {}]'}}.
        csr_inputs: Inputs that may come as scipy.sparse CSR matrices; others are made
            dense.
        keeps_zeros: An elementwise function with f(0) = 0: of a CSR matrix it makes
            another, by its definition over the stored values alone.
        row_sparse_gradients: Which gradients the rule writes as rows; None: none.
    """

    name: str
    attributes: type = NoAttributes
    inputs: tuple[str, ...] | Callable[[Any], tuple[str, ...]] = ("data",)
    outputs: tuple[str, ...] | Callable[[Any], tuple[str, ...]] = ("output",)
    shape: Callable[[Any, Shapes, Shapes], tuple[Shapes, Shapes]]
    forward: Forward
    backward: Backward | None = None
    saved: Saved | Callable[[Any], Saved] = Saved()
    dtype: Callable[[Any, list[Any], list[Any]], tuple[list[Any], list[Any]]] | None = (
        None
    )
    aliases: tuple[str, ...] = ()
    auxiliary: tuple[str, ...] | Callable[[Any], tuple[str, ...]] = ()
    visible: int | Callable[[Any], int] | None = None
    no_gradient: tuple[str, ...] = ()
    is_loss: bool | Callable[[Any], bool] = False
    is_view: bool = False
    shares_gradient: bool = False
    is_random: bool = False
    state: Callable[[Any, Sequence[Array], str], Any] | None = None
    variadic: bool = False
    parameter_defaults: Mapping[str, Mapping[str, str]] | None = None
    csr_inputs: tuple[str, ...] = ()
    keeps_zeros: bool = False
    row_sparse_gradients: RowSparseRule | None = None

    def input_names(self, p: Any) -> tuple[str, ...]:
        """Names of the inputs, with these attributes; auxiliary ones last."""
        return self.inputs(p) if callable(self.inputs) else self.inputs

    def auxiliary_names(self, p: Any) -> tuple[str, ...]:
        """Names of those of the inputs that are auxiliary states."""
        return self.auxiliary(p) if callable(self.auxiliary) else self.auxiliary

    def output_names(self, p: Any) -> tuple[str, ...]:
        """Names of all outputs, hidden ones included."""
        return self.outputs(p) if callable(self.outputs) else self.outputs

    def visible_outputs(self, p: Any) -> int:
        """How many of the first outputs are not hidden."""
        if self.visible is None:
            return len(self.output_names(p))
        return self.visible(p) if callable(self.visible) else self.visible

    def saved_for(self, p: Any) -> Saved:
        """Which inputs and outputs the gradient rule reads."""
        return self.saved(p) if callable(self.saved) else self.saved

    def ignores_head_gradient(self, p: Any) -> bool:
        """Whether it is a loss, which needs no gradient of its output."""
        return self.is_loss(p) if callable(self.is_loss) else self.is_loss


_table: dict[str, Operator] = {}


def register(operator: Operator) -> Operator:
    """Add an operator under its name and aliases; a name may be taken only once."""
    for name in (operator.name, *operator.aliases):
        if name in _table:
            raise OperatorError(f"operator `{name}` is registered already")
        _table[name] = operator
    return operator


def get(name: str) -> Operator:
    """The operator of that name or alias.

    Raises:
        OperatorError: if there is none; lists names that look alike.
    """
    if name in _table:
        return _table[name]
    from difflib import get_close_matches

    close = get_close_matches(name, _table, n=3)
    hint = f"; did you mean {', '.join(close)}?" if close else ""
    raise OperatorError(f"unknown operator `{name}`{hint}")


def names() -> tuple[str, ...]:
    """Every registered name and alias, in order of registration."""
    return tuple(_table)
