"""ChainStep: what is left of a step of a sequence, whose steps are always complete."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from asyncmod.module.batches import Array
from asyncmod.module.step import CompletedStep


@dataclass
class ChainStep(CompletedStep):
    """A complete step with outputs of several modules.

    Attributes:
        by_position: Outputs by the module's position; the last are the step's.
    """

    by_position: Mapping[int, list[Array]] = field(default_factory=dict)

    @classmethod
    def of(cls, outputs: Mapping[int, list[Array]]) -> ChainStep:
        """The step with these outputs."""

        async def last() -> list[Array]:
            return list(outputs[max(outputs)])

        return cls(last, by_position=outputs)
