"""Operators of one's own in Python: `mx.operator.register`, then `mx.sym.Custom`.

    class Softmax(mx.operator.CustomOp):
        def forward(self, is_train, req, in_data, out_data, aux): ...
        def backward(self, req, out_grad, in_data, out_data, in_grad, aux): ...

    @mx.operator.register("softmax")
    class SoftmaxProp(mx.operator.CustomOpProp):
        def create_operator(self, ctx, in_shapes, in_dtypes):
            return Softmax()

    net = mx.sym.Custom(net, op_type="softmax", name="softmax")

Its methods run on the threads of the devices, one operator for each device, and must
leave alone what other threads use. They are not known to worker processes.

Source: MXNet, `python/mxnet/operator.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn, TypeVar

import numpy as np

from asyncmod.absent import ABSENT, refuse
from asyncmod.context import Context
from asyncmod.errors import ArgumentError, ArgumentTypeError
from asyncmod.nd import NDArray
from runtime.graph import registry
from runtime.graph.registry import Shapes
from runtime.ops import custom
from runtime.ops.rules import Dtypes

__all__ = [
    "CustomOp",
    "CustomOpProp",
    "get_all_registered_operators",
    "register",
]

Array = np.ndarray[Any, Any]


class CustomOp:
    """What an operator computes; made by `CustomOpProp.create_operator`.

    One object serves the forward and the backward of one node on one device, and may
    keep something from the one to the other.
    """

    def forward(
        self,
        is_train: bool,
        req: Sequence[str],
        in_data: Sequence[NDArray],
        out_data: Sequence[NDArray],
        aux: Sequence[NDArray],
    ) -> None:
        """Write every array of `out_data`.

        Args:
            is_train: Whether this is a training forward.
            req: For each output what to do with it, for `assign`.
            in_data: The inputs, which must be left as they are.
            out_data: Where the outputs go.
            aux: The auxiliary states, to be changed in place. What a training forward
                changes counts from the end of its backward, or of its `step`; what a
                prediction changes is forgotten.
        """
        raise NotImplementedError(
            f"{type(self).__name__} must define `forward(self, is_train, req, in_data, "
            "out_data, aux)`"
        )

    def backward(
        self,
        req: Sequence[str],
        out_grad: Sequence[NDArray],
        in_data: Sequence[NDArray],
        out_data: Sequence[NDArray],
        in_grad: Sequence[NDArray],
        aux: Sequence[NDArray],
    ) -> None:
        """Write the gradients of the inputs whose `req` is not "null".

        Args:
            req: For each input what to do with its gradient, for `assign`.
            out_grad: Gradients of the outputs; zeros for a loss, which has none.
            in_data: The inputs of the forward.
            out_data: Its outputs.
            in_grad: Where the gradients go.
            aux: The auxiliary states as the forward left them; may be changed.
        """
        raise NotImplementedError(
            f"{type(self).__name__} must define `backward(self, req, out_grad, "
            "in_data, out_data, in_grad, aux)`"
        )

    def assign(self, dst: Array, req: str, src: Any) -> None:
        """Put `src` where `req` wants it: written to `dst`, added to it, or nowhere.

        Raises:
            ArgumentError: `req` is none of "null", "write", "inplace", "add".
        """
        if req in ("write", "inplace"):
            dst[...] = src
        elif req == "add":
            dst[...] += src
        elif req != "null":
            raise ArgumentError(
                f"`req` (={req!r}) must be 'null', 'write', 'inplace' or 'add'"
            )


class CustomOpProp:
    """What an operator is like: names, shapes, dtypes; all attributes come as text.

    Args:
        need_top_grad: Whether the backward reads the gradient of the outputs; False
            for a loss.
    """

    def __init__(self, need_top_grad: bool = True) -> None:
        self.need_top_grad_ = need_top_grad

    def list_arguments(self) -> list[str]:
        """Names of the inputs; variables are made for those that are not given."""
        return ["data"]

    def list_outputs(self) -> list[str]:
        """Names of the outputs."""
        return ["output"]

    def list_auxiliary_states(self) -> list[str]:
        """Names of the auxiliary states."""
        return []

    def infer_shape(self, in_shape: list[Any]) -> tuple[Any, ...]:
        """Shapes of inputs, outputs and auxiliary states (which may be left out).

        Args:
            in_shape: A list of sizes for each input; an empty one if it is not known.
        """
        return in_shape, (in_shape[0],) * len(self.list_outputs()), ()

    def infer_type(self, in_type: list[Any]) -> tuple[Any, ...]:
        """Dtypes of inputs, outputs and auxiliary states: that of the first input."""
        first = in_type[0]
        return (
            in_type,
            [first] * len(self.list_outputs()),
            [first] * len(self.list_auxiliary_states()),
        )

    def declare_backward_dependency(
        self, out_grad: list[int], in_data: list[int], out_data: list[int]
    ) -> list[int]:
        """Which arrays the backward reads. Not asked: all of them are kept for it."""
        return [*(out_grad if self.need_top_grad_ else ()), *in_data, *out_data]

    def create_operator(
        self, ctx: Context, in_shapes: list[list[int]], in_dtypes: list[Any]
    ) -> CustomOp:
        """The operator for one device.

        Args:
            ctx: The device.
            in_shapes: Of inputs and auxiliary states.
            in_dtypes: Of inputs and auxiliary states.
        """
        raise NotImplementedError(
            f"{type(self).__name__} must define `create_operator(self, ctx, in_shapes, "
            "in_dtypes)`"
        )


PropT = TypeVar("PropT", bound=CustomOpProp)


def register(reg_name: str) -> Callable[[type[PropT]], type[PropT]]:
    """A decorator that makes a CustomOpProp known as an `op_type`.

    Args:
        reg_name: The name; a class that had it before is replaced, for what is bound
            from then on. Symbols with other inputs must be made anew.

    Raises:
        ArgumentTypeError: the name is no string, or the class no CustomOpProp.
    """
    if not isinstance(reg_name, str):
        raise ArgumentTypeError(f"`reg_name` must be a string, not {reg_name!r}")

    def decorate(prop: type[PropT]) -> type[PropT]:
        given: object = prop
        if not (isinstance(given, type) and issubclass(given, CustomOpProp)):
            raise ArgumentTypeError(
                f"{prop!r} cannot be registered as `{reg_name}`: it must be a class "
                "that derives from CustomOpProp"
            )
        custom.define(reg_name, lambda attributes: _Kind(prop, attributes))
        return prop

    return decorate


def get_all_registered_operators() -> list[str]:
    """Names of all operators, those registered here included."""
    return [*registry.names(), *custom.defined()]


def __getattr__(name: str) -> NoReturn:
    """MXNet's first kinds of such operators are not here; the error says what is."""
    if name in ABSENT:
        raise refuse(f"mx.operator.{name}", name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


class _Kind:
    """A CustomOpProp as the runtime asks it."""

    def __init__(
        self, make: Callable[..., CustomOpProp], attributes: Mapping[str, str]
    ) -> None:
        self._prop = made = make(**attributes)
        self.names = custom.Names(
            tuple(made.list_arguments()),
            tuple(made.list_outputs()),
            tuple(made.list_auxiliary_states()),
            bool(made.need_top_grad_),
        )

    def shapes(self, arguments: Shapes) -> tuple[Shapes, Shapes, Shapes]:
        given = [list(shape or ()) for shape in arguments]
        parts = [*self._prop.infer_shape(given), (), ()]
        inputs, outputs, auxiliaries = (
            [tuple(map(int, shape)) or None for shape in part] for part in parts[:3]
        )
        return inputs, outputs, auxiliaries

    def dtypes(self, arguments: Dtypes) -> tuple[Dtypes, Dtypes, Dtypes]:
        parts = [*self._prop.infer_type([np.dtype(d).type for d in arguments]), (), ()]
        inputs, outputs, auxiliaries = (
            [np.dtype(dtype) for dtype in part] for part in parts[:3]
        )
        return inputs, outputs, auxiliaries

    def start(self, device: str, inputs: Sequence[Array]) -> _Running:
        count = len(self.names.arguments)
        self.shapes([array.shape for array in inputs[:count]])  # it may keep them
        self.dtypes([array.dtype for array in inputs[:count]])
        kind, _, index = device.rstrip(")").partition("(")
        operator = self._prop.create_operator(
            Context(kind, int(index)),
            [list(array.shape) for array in inputs],
            [array.dtype.type for array in inputs],
        )
        if not isinstance(operator, CustomOp):
            raise ArgumentTypeError(
                f"{type(self._prop).__name__}.create_operator must return a CustomOp, "
                f"not {operator!r}"
            )
        return _Running(operator)


class _Running:
    """A CustomOp as the runtime calls it: by the names of arguments, as MXNet does."""

    def __init__(self, operator: CustomOp) -> None:
        self._operator = operator

    def forward(
        self,
        is_train: bool,
        inputs: Sequence[Array],
        outputs: Sequence[Array],
        auxiliaries: Sequence[Array],
    ) -> None:
        self._operator.forward(
            is_train=is_train,
            req=["write"] * len(outputs),
            in_data=[_read_only(array) for array in inputs],
            out_data=_views(outputs),
            aux=_views(auxiliaries),
        )

    def backward(
        self,
        heads: Sequence[Array],
        inputs: Sequence[Array],
        outputs: Sequence[Array],
        gradients: Sequence[Array | None],
        auxiliaries: Sequence[Array],
    ) -> None:
        self._operator.backward(
            req=["null" if gradient is None else "write" for gradient in gradients],
            out_grad=[_read_only(array) for array in heads],
            in_data=[_read_only(array) for array in inputs],
            out_data=[_read_only(array) for array in outputs],
            in_grad=[
                (np.empty_like(array) if gradient is None else gradient).view(NDArray)
                for gradient, array in zip(gradients, inputs, strict=True)
            ],
            aux=_views(auxiliaries),
        )


def _views(arrays: Sequence[Array]) -> list[NDArray]:
    return [array.view(NDArray) for array in arrays]


def _read_only(array: Array) -> NDArray:
    view = array.view(NDArray)
    view.flags.writeable = False
    return view
