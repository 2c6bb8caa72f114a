"""What must be there before a call: executors, values, an optimizer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asyncmod.errors import ModuleStateError

if TYPE_CHECKING:
    from asyncmod.module.base import BaseModule


def need_bound(module: BaseModule, call: str) -> None:
    """Raise ModuleStateError unless the module is bound."""
    if not module.binded:
        raise ModuleStateError(
            f"`{call}` needs a module that is bound: "
            "`await mod.bind(data_shapes, label_shapes)` first"
        )


def need_params(module: BaseModule, call: str) -> None:
    """Raise ModuleStateError unless the bound module's parameters have values."""
    if not module.params_initialized:
        raise ModuleStateError(
            f"`{call}` needs parameters: `await mod.init_params()` or "
            "`await mod.set_params(...)` first"
        )


def need_training(module: BaseModule, call: str) -> None:
    """Raise ModuleStateError unless the module is bound for training."""
    if not module.for_training:
        raise ModuleStateError(
            f"`{call}` needs a module that is bound for training: "
            "`await mod.bind(..., for_training=True, force_rebind=True)`"
        )


def need_optimizer(call: str, *, there: bool) -> None:
    """Raise ModuleStateError unless there is an optimizer."""
    if not there:
        raise ModuleStateError(
            f"`{call}` needs an optimizer: `await mod.init_optimizer()` first"
        )


def need_input_gradients(module: BaseModule) -> None:
    """Raise ModuleStateError unless the data inputs get gradients."""
    if not module.inputs_need_grad:
        raise ModuleStateError(
            "`get_input_grads` needs `await mod.bind(..., inputs_need_grad=True)`"
        )
