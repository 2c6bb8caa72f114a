"""CTCLoss: how likely a net's scores make a sequence of labels without alignment.

Connectionist temporal classification (Graves et al., 2006): at each step the net says
a class or *blank*; repeats are merged, then blanks dropped. The loss is minus the
logarithm of the probability of all ways to say the labels, summed by recursion over
the steps for all rows at once. A row's *states* are its labels with blanks around.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from runtime.errors import ShapeError
from runtime.graph.registry import (
    Array,
    Mode,
    Operator,
    Saved,
    Shapes,
    register,
)
from runtime.graph.shapes import is_known, unify
from runtime.ops.indexing import positions
from runtime.ops.rules import accumulator, free_label
from runtime.ops.softmax import log_softmax


@dataclass(frozen=True)
class CTCLoss:
    """Attributes; the data are (step, row, class) scores, the labels (row, position).

    A row whose labels need more steps than it has costs 0, and its gradient is 0. MXNet
    leaves undefined what labels and lengths out of range give; here they are clipped.

    Attributes:
        use_data_lengths: A further input says for each row how many steps count.
        use_label_lengths: A further input says for each row how many labels count.
            Without it they end at the first padding: 0 if the blank is first, else -1.
        blank_label: Which class is the blank.
    """

    use_data_lengths: bool = False
    use_label_lengths: bool = False
    blank_label: Literal["first", "last"] = "first"


def _inputs(p: CTCLoss) -> tuple[str, ...]:
    lengths = ("data_lengths",) * p.use_data_lengths
    return ("data", "label", *lengths, *("label_lengths",) * p.use_label_lengths)


def _shape(p: CTCLoss, inputs: Shapes, outputs: Shapes) -> tuple[Shapes, Shapes]:
    data: Any = unify(inputs[0], (0, 0, 0), "data")
    label: Any = unify(inputs[1], (data[1], 0), "label")
    output: Any = unify(outputs[0], label[:1], "output")
    lengths: Shapes = [
        unify(shape, output, name)
        for name, shape in zip(_inputs(p)[2:], inputs[2:], strict=True)
    ]
    data, label = (data[0], output[0], data[2]), (output[0], label[1])
    if is_known(data) and is_known(label) and label[1] > data[0]:
        raise ShapeError(
            f"`label` has shape {label}, but rows of `data` {data} have no more than "
            f"{data[0]} steps, one for each label"
        )
    return [data, label, *lengths], [output]


@dataclass(frozen=True)
class Lattice:
    """What the recursions walk through; S states are 2 * labels + 1.

    Attributes:
        classes: Each state's class: (row, S).
        skips: Whether a state may be entered from the last but one: (row, S - 2).
        counts: States that count: (row,).
        steps: Steps that count: (row,).
        possible: Whether there are steps enough to say the labels: (row,).
        scores: Logarithms of the probability of each state's class: (step, row, S).
    """

    classes: Array
    skips: Array
    counts: Array
    steps: Array
    possible: Array
    scores: Array


def _lattice(p: CTCLoss, inputs: Sequence[Array], scores: Array) -> Lattice:
    """Lay out the states for logarithms of probabilities (step, row, class)."""
    longest, rows, classes = scores.shape
    label = inputs[1]
    given = dict(zip(_inputs(p)[2:], inputs[2:], strict=True))
    steps = positions(given.get("data_lengths", np.full(rows, longest)), longest + 1)
    if p.use_label_lengths:
        lengths = positions(given["label_lengths"], label.shape[1] + 1)
    else:
        padding = np.trunc(label) == (0 if p.blank_label == "first" else -1)
        ends = np.pad(padding, ((0, 0), (0, 1)), constant_values=True)
        lengths = ends.argmax(axis=1)
    blank = 0 if p.blank_label == "first" else classes - 1
    states = np.full((rows, 2 * label.shape[1] + 1), blank)
    states[:, 1::2] = positions(label, classes)
    repeats = (states[:, 3::2] == states[:, 1:-2:2]) & (
        np.arange(1, label.shape[1]) < lengths[:, None]
    )
    return Lattice(
        classes=states,
        skips=(states[:, 2:] != blank) & (states[:, 2:] != states[:, :-2]),
        counts=2 * lengths + 1,
        steps=steps,
        possible=(steps > 0) & (lengths + repeats.sum(axis=1) <= steps),
        scores=np.take_along_axis(scores, states[None], axis=2),
    )


def _advance(likely: Array, skips: Array) -> Array:
    """Logarithms after one step: stay, enter from the state before, or skip one."""
    moved = likely.copy()
    moved[:, 1:] = np.logaddexp(likely[:, 1:], likely[:, :-1])
    skipped = np.where(skips, likely[:, :-2], -np.inf)
    moved[:, 2:] = np.logaddexp(moved[:, 2:], skipped)
    return moved


def _forward_pass(lattice: Lattice) -> Array:
    """Logarithms of the probability to be in a state after a step: (step, row, S)."""
    # In double precision: there may be thousands of steps to sum over.
    likely = np.full(lattice.scores.shape, -np.inf)
    likely[0, :, :2] = lattice.scores[0, :, :2]
    for step in range(1, len(likely)):
        likely[step] = _advance(likely[step - 1], lattice.skips) + lattice.scores[step]
    return likely


def _backward_pass(lattice: Lattice) -> Array:
    """Logarithms of the probability to end well from a state: (step, row, S)."""
    number = np.arange(lattice.scores.shape[2])
    last = lattice.counts[:, None] - 1
    final = np.where((number == last) | (number == last - 1), 0, -np.inf)
    ends = np.full(lattice.scores.shape, -np.inf)
    rows = lattice.steps[:, None] - 1
    following = ends[-1]
    for step in range(len(ends) - 1, -1, -1):
        ends[step] = np.where(rows == step, final, following)
        # Backward the lattice is the same, with its states in reverse.
        here = (ends[step] + lattice.scores[step])[:, ::-1]
        following = _advance(here, lattice.skips[:, ::-1])[:, ::-1]
    return ends


def _total(lattice: Lattice, likely: Array) -> Array:
    """Logarithms of the probability of the labels: (row,)."""
    rows = np.arange(len(lattice.counts))
    end = likely[lattice.steps - 1, rows]
    last = lattice.counts - 1
    before = np.where(last > 0, end[rows, last - 1], -np.inf)
    total: Array = np.logaddexp(end[rows, last], before)
    return total


def _log_probabilities(data: Array) -> Array:
    return log_softmax(data.astype(accumulator(data.dtype), copy=False), 2)


def _forward(
    p: CTCLoss, inputs: Sequence[Array], outputs: Sequence[Array], mode: Mode
) -> None:
    lattice = _lattice(p, inputs, _log_probabilities(inputs[0]))
    total = _total(lattice, _forward_pass(lattice))
    outputs[0][...] = np.where(lattice.possible, -total, 0)


def _backward(
    p: CTCLoss,
    grads_out: Sequence[Any],
    inputs: Sequence[Any],
    outputs: Sequence[Any],
    grads_in: Sequence[Any],
    mode: Mode,
) -> None:
    """Softmax minus the probability to say a class at a step, given the labels."""
    if grads_in[0] is None:
        return
    scores = _log_probabilities(inputs[0])
    lattice = _lattice(p, inputs, scores)
    likely = _forward_pass(lattice)
    total = _total(lattice, likely)
    with np.errstate(invalid="ignore"):  # of a loss that is not finite
        said = np.exp(likely + _backward_pass(lattice) - total[:, None])
    grad = np.exp(scores)
    rows = np.arange(len(total))
    for state, classes in enumerate(lattice.classes.T):
        grad[:, rows, classes] -= said[:, :, state]
    counted = np.arange(len(grad))[:, None] < lattice.steps * lattice.possible
    grads_in[0][...] = np.where(counted, grads_out[0], 0)[..., None] * np.where(
        counted[..., None], grad, 0
    )


register(
    Operator(
        name="CTCLoss",
        aliases=("ctc_loss", "_contrib_CTCLoss", "_contrib_ctc_loss"),
        attributes=CTCLoss,
        inputs=_inputs,
        outputs=("output0",),
        no_gradient=("label", "data_lengths", "label_lengths"),
        shape=_shape,
        dtype=free_label,
        forward=_forward,
        backward=_backward,
        saved=lambda p: Saved(inputs=tuple(range(len(_inputs(p))))),
    )
)
