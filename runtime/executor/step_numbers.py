"""The numbers of the steps that are dispatched: learning rates and their like.

A step is counted when it is dispatched. One that is withdrawn or fails was no step, and
those after it get the numbers that they should have without it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from runtime.executor.accumulation import Averaged, Part
from runtime.executor.updater import Updater
from runtime.ops.update import get_rule

if TYPE_CHECKING:
    from runtime.executor.step import Step


class StepNumbers:
    """See the module; used on the Trio thread.

    Args:
        updater: Whose numbers.
        shared: The numbers of an updater that counts the same steps.
    """

    def __init__(self, updater: Updater, shared: StepNumbers | None = None) -> None:
        self._updater = updater
        self._averaged = Averaged()
        self._dispatched: list[Step] = [] if shared is None else shared._dispatched

    def next(self, part: Part | None) -> NDArray[np.float64] | None:
        """The next step's numbers; the updater counts it."""
        hyper, rule = self._updater.hyper, self._updater.rule
        if hyper is None or rule is None:
            return None
        numbers = hyper()
        if part is None:
            return numbers
        column = get_rule(rule).hyper.index("rescale_grad")
        return self._averaged(numbers, column, part)

    def count(self, step: Step) -> None:
        """A step is dispatched: give it its numbers."""
        if not step.updates:
            return
        step.hyper = self.next(step.part)
        step.numbers = self
        self._dispatched.append(step)

    def begin_anew(self) -> None:
        """Other counts were set: what becomes of steps before changes them no more."""
        for step in self._dispatched:
            step.numbers = None
        self._dispatched.clear()

    def withdrawn(self, step: Step) -> None:
        """A step will not be: give later ones the numbers that they then should have.

        Called while the step is being withdrawn: later ones cannot have begun.
        """
        if step.part is not None:
            step.part.fail()
        if not step.updates or step.numbers is None:
            return
        position = self._dispatched.index(step)
        later = self._dispatched[position + 1 :]
        for other in (step, *later):
            assert other.numbers is not None
            other.numbers._updater.revert()
        del self._dispatched[position]
        for other in later:
            assert other.numbers is not None
            try:
                other.hyper = other.numbers.next(other.part)
            except Exception as error:  # a scheduler's; its step will raise it
                other.error = error

    def finished(self, step: Step, failed: bool) -> None:
        """A step has ended; one that failed was no step."""
        if not step.updates or step.numbers is None:
            return
        self._dispatched.remove(step)
        if failed:
            self._updater.revert()
