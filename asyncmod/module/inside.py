"""What the loops, and modules made of modules, ask of a module besides its face.

`Module`, `BucketingModule` and `SequentialModule` have one of their own, so that their
steps overlap and their states are kept; every other module has a `PlainInside`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any, NoReturn, Protocol

from asyncmod.checkpoint.staging import Staging
from asyncmod.errors import UnsupportedError
from asyncmod.io.batch import DataDesc
from asyncmod.module.batches import Array
from asyncmod.module.real_rows import RealRows
from asyncmod.module.step import Step
from runtime.executor.accumulation import Part
from runtime.executor.family import Dropped

if TYPE_CHECKING:
    from asyncmod.module.base import BaseModule
    from asyncmod.module.flight import Flight

State = dict[str, Any]


class Inside(Protocol):
    """See the module."""

    @property
    def value_names(self) -> Sequence[str]:
        """Names of the parameters and auxiliary states."""
        ...

    @property
    def trained_names(self) -> Sequence[str]:
        """Names of the parameters that are not fixed."""
        ...

    @property
    def state_names(self) -> Sequence[str]:
        """Names of the state inputs."""
        ...

    @property
    def labels(self) -> Sequence[DataDesc]:
        """Descriptions of the labels as the metrics get them."""
        ...

    @property
    def output_axes(self) -> Sequence[int]:
        """The batch axis of each output, -1 if it has none."""
        ...

    @property
    def dropped(self) -> Sequence[Dropped]:
        """Devices that died since it was bound, and that it goes on without."""
        ...

    def axes_of(self, step: Step) -> Sequence[int]:
        """The batch axes of a step's outputs."""
        ...

    def real_rows(self, rows: int, pad: int) -> RealRows:
        """How so many samples of a batch lie in labels and outputs."""
        ...

    def check_accumulation(self) -> None:
        """Refuse `fit(accumulate=...)` where gradients cannot be added up."""
        ...

    def frozen(self) -> AbstractAsyncContextManager[BaseModule]:
        """A module of its own with the values of this moment, for `predict`."""
        ...

    async def dispatch_step(
        self, batch: Any, part: Part | None = None, outputs: bool = True
    ) -> Step:
        """Begin a training step.

        Args:
            batch: The batch.
            part: With a part, add gradients up as that says.
            outputs: Whether the step is to have `outputs`: copies, for a metric.
        """
        ...

    async def dispatch_predict(self, batch: Any) -> Step:
        """Begin an inference forward."""
        ...

    async def update(self, part: Part | None) -> None:
        """Update the parameters; with a part as that says."""
        ...

    async def synchronize(self) -> None:
        """Bring replicas together at the end of an epoch: their auxiliary states."""
        ...

    async def count_batch(self, metric: Any, flight: Flight, count_pad: bool) -> int:
        """Update a metric with a completed step; returns the rows of the batch."""
        ...

    async def gather_state(self, staging: Staging, prefix: str = "") -> State:
        """Copy the training's state; see `asyncmod.module.training_state.gather`."""
        ...

    async def put_back_state(
        self, arrays: Mapping[str, Array], state: Mapping[str, Any], prefix: str = ""
    ) -> None:
        """Set what `gather_state` has gathered."""
        ...


def refuse_snapshot(module: BaseModule) -> NoReturn:
    """Raise UnsupportedError: only a Module predicts from a snapshot."""
    raise UnsupportedError(
        f"predict(snapshot=True) is there for Module, not for {type(module).__name__}"
    )
