"""Activations that kernels apply to their result: codes, and who may carry one."""

from __future__ import annotations

from runtime.graph.ir import Node
from runtime.kernels.cpu.table import Epilogue

_CODES = {
    "relu": Epilogue.RELU,
    "sigmoid": Epilogue.SIGMOID,
    "tanh": Epilogue.TANH,
    "softrelu": Epilogue.SOFTRELU,
    "softsign": Epilogue.SOFTSIGN,
}


def code(activation: Node | None) -> Epilogue:
    """The epilogue code of an Activation node; NONE without one."""
    if activation is None:
        return Epilogue.NONE
    return _CODES[activation.attributes.act_type]
