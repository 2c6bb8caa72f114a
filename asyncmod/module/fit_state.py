"""The state of all that takes part in `fit`: gathered between two steps, and put back.

Next: `asyncmod.module.training_state` and `asyncmod.module.history_rows`.
"""

from __future__ import annotations

from typing import Any

import trio

from asyncmod import random
from asyncmod.checkpoint import CheckpointFile
from asyncmod.checkpoint.staging import Staging
from asyncmod.checkpoint.tree import put_together, take_apart
from asyncmod.errors import CheckpointError
from asyncmod.module.checkpoints import Subjects
from asyncmod.module.history_rows import HistoryRows


class FitState:
    """Gathers the state as often as it is saved.

    What a file lacks, since an older version of the library wrote it or since the
    script had no such thing, stays as it is.
    """

    def __init__(self, subjects: Subjects) -> None:
        self._subjects = subjects
        self._rows = HistoryRows(subjects.history)

    async def gather(self, staging: Staging) -> dict[str, Any]:
        """Copy the arrays into the staging; returns the rest, as plain data.

        Raises:
            CheckpointError: a callback keeps something else than arrays and plain data.
            UnsupportedError: the module or its optimizer does not say what it keeps.
        """
        subjects = self._subjects
        state = {
            "module": await subjects.module.inside.gather_state(staging),
            "iterator": subjects.batches.get_state(),
            "metric": subjects.metric.get_state(),
            "callback_states": await self._gather_callbacks(staging),
            "history": await self._rows.gather(staging),
            "random": random.get_state(),
        }
        if _has_state(subjects.evaluation):
            state["evaluation"] = subjects.evaluation.get_state()
        return state

    async def put_back(self, file: CheckpointFile) -> None:
        """Set what `gather` has gathered, but for the metric.

        Raises:
            KeyError, TypeError, ValueError: the file is of another training.
            CheckpointError: the module's part of it is.
        """
        subjects, state = self._subjects, file.header.state
        await subjects.module.inside.put_back_state(file, state["module"])
        subjects.batches.set_state(state["iterator"])
        if "evaluation" in state and _has_state(subjects.evaluation):
            subjects.evaluation.set_state(state["evaluation"])
        if "callback_states" in state:
            tree = state["callback_states"]
            states = await trio.to_thread.run_sync(put_together, tree, file)
        else:
            states = state["callbacks"]
        self._put_back_callbacks(states)
        if "history" in state:
            await self._rows.put_back(file, state["history"])
        random.set_state(state["random"])

    async def _gather_callbacks(self, staging: Staging) -> Any:
        states = [callback.get_state() for callback in self._stateful()]
        try:
            return await trio.to_thread.run_sync(
                take_apart, states, staging.copy, "callback"
            )
        except TypeError as error:
            names = ", ".join(type(c).__name__ for c in self._stateful())
            raise CheckpointError(
                f"the state of a callback ({names}) cannot be saved: {error}"
            ) from error

    def _put_back_callbacks(self, states: list[Any]) -> None:
        callbacks = self._stateful()
        if len(callbacks) != len(states):
            raise ValueError(
                f"it holds the states of {len(states)} callbacks, and "
                f"{len(callbacks)} of those given have one"
            )
        for callback, state in zip(callbacks, states, strict=True):
            callback.set_state(state)

    def _stateful(self) -> list[Any]:
        return [c for c in self._subjects.callbacks if _has_state(c)]


def _has_state(subject: Any) -> bool:
    return hasattr(subject, "get_state") and hasattr(subject, "set_state")
