"""A module in a sequence: what it is handed, and what it hands on.

Next: `asyncmod.module.module`, which most of them are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from asyncmod.errors import NameMismatchError
from asyncmod.io.batch import DataBatch, DataDesc
from asyncmod.module.base import BaseModule
from asyncmod.module.python_loss_module import PythonLossModule
from asyncmod.module.python_module import PythonModule


@dataclass(frozen=True)
class Child:
    """A module of the sequence.

    Attributes:
        module: The module.
        take_labels: Whether it gets the labels, and counts in metrics.
        auto_wiring: Whether the outputs before it are renamed to its data names.
    """

    module: BaseModule
    take_labels: bool = False
    auto_wiring: bool = False


def wired(child: Child, position: int, outputs: list[DataDesc]) -> list[DataDesc]:
    """The outputs before a module, described as its data.

    Raises:
        NameMismatchError: their names, or their number, are not those of its data.
    """
    names = child.module.data_names
    given = [description.name for description in outputs]
    if len(given) != len(names) or not (
        child.auto_wiring or sorted(given) == sorted(names)
    ):
        advice = "" if len(given) != len(names) else ": add it with auto_wiring=True"
        raise NameMismatchError(
            f"the outputs of module {position - 1}, {given}, are not the data of "
            f"module {position}, {names}{advice}"
        )
    if not child.auto_wiring:
        return outputs
    return [
        DataDesc(name, d.shape, d.dtype, d.layout)
        for name, d in zip(names, outputs, strict=True)
    ]


def is_users(module: BaseModule, member: str) -> bool:
    """Whether a member runs the user's own code, which can always be cancelled."""
    if not isinstance(module, PythonModule):
        return False
    if member == "forward":
        return type(module).forward is not PythonLossModule.forward
    return True


def outputs_of(module: BaseModule) -> list[DataDesc]:
    """Descriptions of a module's outputs; their layout tells the batch axis."""
    return [
        DataDesc(name, shape, layout="T" * axis + "N" if axis >= 0 else "")
        for (name, shape), axis in zip(
            module.output_shapes, module.inside.output_axes, strict=True
        )
    ]


def next_batch(outputs: Sequence[Any], batch: Any) -> DataBatch:
    """What the next module gets: outputs for data, the same labels."""
    return DataBatch(
        list(outputs),
        getattr(batch, "label", None),
        pad=getattr(batch, "pad", None),
        bucket_key=getattr(batch, "bucket_key", None),
        provide_label=getattr(batch, "provide_label", None),
    )


def batch_for(child: Child, batch: Any) -> Any:
    """The batch as a module sees it: without labels unless it takes them."""
    if child.take_labels or not getattr(batch, "label", None):
        return batch
    return DataBatch(
        batch.data,
        pad=getattr(batch, "pad", None),
        bucket_key=getattr(batch, "bucket_key", None),
        provide_data=getattr(batch, "provide_data", None),
    )
