"""What a group is told about an optimizer: a rule and its numbers, or a function."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def nothing() -> None:
    """Take back nothing: for rules whose numbers do not depend on a count."""


@dataclass(frozen=True, eq=False)
class Updater:
    """How parameters follow from gradients; compared by identity.

    With a `rule`, the update is a plan that runs fused with the sum of gradients on
    the devices. Without one, `function` is called for each parameter on a device
    thread with copies, which take effect only when all calls have succeeded.

    Attributes:
        rule: Name of an update rule known to `runtime.graph.update`, or None.
        parameters: The parameters to update, in the order of the rows of `hyper()`
            (with a function: their indexes).
        states: Names of the rule's state arrays, such as ("momentum",). With "master"
            among them float16 parameters keep a float32 copy that is updated, and their
            other states are float32.
        hyper: Called once for each step when it is dispatched, on the Trio thread; it
            counts the step and returns the rule's numbers, float64 of shape
            (len(parameters), H), in an array that is never changed afterwards.
        revert: Takes back the latest call of `hyper` whose step was withdrawn or
            failed; called on the Trio thread.
        function: (index, weight, gradient, state) -> None; changes weight and state in
            place.
        create_state: (index, weight) -> the parameter's first state for `function`.
        shares: An updater of the same kind for these parameters and more: its states
            are used, so that graphs with some of the parameters can be trained in turn.
        accumulates: The parameters whose gradients a step adds to the accumulators that
            the update then reads; None if it reads the gradients themselves.
        lazy: Where a gradient is row-sparse, and the rule can, update only the rows
            that it has.
    """

    rule: str | None
    parameters: tuple[str, ...]
    states: tuple[str, ...] = ()
    hyper: Callable[[], NDArray[np.float64]] | None = None
    revert: Callable[[], None] = nothing
    function: Callable[[int, Array, Array, Any], None] | None = None
    create_state: Callable[[int, Array], Any] | None = None
    shares: Updater | None = None
    accumulates: tuple[str, ...] | None = None
    lazy: bool = False
