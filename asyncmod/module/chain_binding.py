"""Binding the modules of a sequence, each to the outputs of the one before.

Next: `asyncmod.module.child`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from asyncmod.errors import NameMismatchError
from asyncmod.io.batch import DataDesc
from asyncmod.module.base import BaseModule
from asyncmod.module.child import Child, outputs_of, wired
from asyncmod.module.python_module import PythonModule


async def bind_children(
    children: Sequence[Child],
    data: Sequence[DataDesc],
    labels: Sequence[DataDesc],
    *,
    for_training: bool,
    inputs_need_grad: bool,
    grad_req: Any,
) -> None:
    """Bind all, whether they are bound already or not.

    Args:
        children: In order; at least one.
        data: What the first gets.
        labels: What those get that take labels.
        for_training, inputs_need_grad, grad_req: As of Module.bind, for the sequence.

    Raises:
        NameMismatchError: outputs are not named as the next module's data.
    """
    described = list(data)
    for position, child in enumerate(children):
        if position > 0:
            described = wired(child, position, described)
        await child.module.bind(
            data_shapes=described,
            label_shapes=list(labels) if child.take_labels else None,
            for_training=for_training,
            inputs_need_grad=inputs_need_grad or (for_training and position > 0),
            force_rebind=True,
            grad_req=_request(child.module, position, grad_req),
        )
        described = outputs_of(child.module)


def check_requests(grad_req: Any, names: set[str]) -> None:
    """Refuse requests by name that no module has use for.

    Args:
        grad_req: As `bind` has it.
        names: Those of the data and of all parameters.

    Raises:
        NameMismatchError: naming the first.
    """
    if isinstance(grad_req, Mapping):
        for name in grad_req:
            if name not in names:
                raise NameMismatchError(
                    f"`grad_req` names `{name}`, which is neither data nor a "
                    f"parameter of the sequence: {', '.join(sorted(names))}"
                )


def _request(module: BaseModule, position: int, grad_req: Any) -> Any:
    """What a module gets for `grad_req`.

    Gradients that only go from module to module are written, never added up: what
    adds up are those of the parameters.
    """
    if isinstance(module, PythonModule):
        return "write"
    if grad_req == "add" and position > 0:
        return dict.fromkeys(module.inside.trained_names, "add")
    if isinstance(grad_req, Mapping):
        names = set(module.inside.value_names)
        if position == 0:
            names.update(module.data_names)
        return {n: wish for n, wish in grad_req.items() if n in names}
    return grad_req
