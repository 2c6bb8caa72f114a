"""`grad_req` in all its forms, resolved to one request per argument."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, get_args

from asyncmod.errors import ArgumentError, NameMismatchError
from runtime.graph.compile import GradientRequest

REQUESTS: tuple[str, ...] = get_args(GradientRequest)


def resolve(
    grad_req: Any,
    arguments: Sequence[str],
    data: Collection[str],
    inputs: Collection[str],
    fixed: Collection[str],
    for_training: bool,
    inputs_need_grad: bool,
) -> dict[str, GradientRequest]:
    """One request per argument, as MXNet's executor group makes them.

    Args:
        grad_req: A string for all, a list in argument order, or a dict by name over
            the default "write".
        arguments: All arguments of the symbol.
        data: Names of the data inputs.
        inputs: Names of data, labels and states; every other argument is a parameter.
        fixed: Parameters that are not trained.
        for_training: Otherwise every request is "null".
        inputs_need_grad: Whether data inputs get gradients.

    Raises:
        ArgumentError: an unknown request, or a list of the wrong length.
        NameMismatchError: a dict names something that is no argument.
    """
    if isinstance(grad_req, str):
        requests = _default(
            _checked(grad_req), arguments, data, inputs, fixed, inputs_need_grad
        )
    elif isinstance(grad_req, Mapping):
        requests = _default("write", arguments, data, inputs, fixed, inputs_need_grad)
        for name, request in grad_req.items():
            if name not in requests:
                raise NameMismatchError(
                    f"`grad_req` names `{name}`, which is no argument of the symbol; "
                    f"its arguments are: {', '.join(arguments)}"
                )
            requests[name] = _checked(request)
    elif isinstance(grad_req, list | tuple):
        if len(grad_req) != len(arguments):
            raise ArgumentError(
                f"`grad_req` has {len(grad_req)} entries; as a list it needs one for "
                f"each of the {len(arguments)} arguments: {', '.join(arguments)}"
            )
        requests = {
            name: _checked(request)
            for name, request in zip(arguments, grad_req, strict=True)
        }
    else:
        raise ArgumentError(
            "`grad_req` must be a string, a list in argument order or a dict by name, "
            f"not {grad_req!r}"
        )
    return requests if for_training else dict.fromkeys(arguments, "null")


def _default(
    request: GradientRequest,
    arguments: Sequence[str],
    data: Collection[str],
    inputs: Collection[str],
    fixed: Collection[str],
    inputs_need_grad: bool,
) -> dict[str, GradientRequest]:
    requests: dict[str, GradientRequest] = {}
    for name in arguments:
        if name in data:
            wanted = inputs_need_grad
        else:
            wanted = name not in inputs and name not in fixed
        requests[name] = request if wanted else "null"
    return requests


def _checked(request: Any) -> GradientRequest:
    if request not in REQUESTS:
        raise ArgumentError(
            f"`grad_req` has {request!r}; it must be one of {', '.join(REQUESTS)}"
        )
    known: GradientRequest = request
    return known
