"""An operator whose behavior a test decides, device by device."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

from runtime.graph.registry import Mode, Operator, PartialShape, register

Direction = Literal["forward", "backward"]
Hook = Callable[[str, Direction], None]

_hook: Hook | None = None


def _forward(p: Any, inputs: Sequence[Any], outputs: Sequence[Any], mode: Mode) -> None:
    if _hook is not None:
        _hook(threading.current_thread().name, "forward")
    outputs[0][...] = inputs[0]


def _backward(
    p: Any,
    grads_out: Sequence[Any],
    inputs: Sequence[Any],
    outputs: Sequence[Any],
    grads_in: Sequence[Any],
    mode: Mode,
) -> None:
    if _hook is not None:
        _hook(threading.current_thread().name, "backward")
    if grads_in[0] is not None:
        grads_in[0][...] = grads_out[0]


def _shape(
    p: Any, inputs: list[PartialShape], outputs: list[PartialShape]
) -> tuple[list[PartialShape], list[PartialShape]]:
    known = inputs[0] or outputs[0]
    return [known], [known]


FRAGILE = register(
    Operator(name="_test_fragile", shape=_shape, forward=_forward, backward=_backward)
)


@contextmanager
def hooked(hook: Hook) -> Iterator[None]:
    """Call `hook(device name, direction)` on the device threads for a while."""
    global _hook
    _hook = hook
    try:
        yield
    finally:
        _hook = None


def failing_on(device: str, direction: Direction = "backward") -> Hook:
    """A hook that raises on one device."""

    def hook(name: str, where: Direction) -> None:
        if name == device and where == direction:
            raise ArithmeticError(f"injected on {name}")

    return hook
