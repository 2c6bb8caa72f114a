"""Operators that compare along one axis: argmax, argmin, sort, argsort, topk.

Of equal elements the first wins. Positions come as numbers of a floating-point type
unless asked otherwise, and pass no gradient.

Sources: MXNet's `src/operator/tensor/ordering_op-inl.h` and
`src/operator/tensor/broadcast_reduce_op.h`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from runtime.graph.registry import (
    Array,
    Mode,
    NoAttributes,
    Operator,
    Saved,
    Shapes,
    register,
)
from runtime.graph.shapes import is_known, unify
from runtime.ops.rules import Dtypes, axis_in

IndexDtype = Literal["float16", "float32", "float64", "int32", "int64", "uint8"]


@dataclass(frozen=True)
class Extreme:
    """Attributes of argmax and argmin; no axis means all elements, flattened."""

    axis: int | None = None
    keepdims: bool = False


# argmax_channel has no attributes: it looks along the channels.
_CHANNEL = Extreme(axis=1)


def _extreme_shape(p: Any, inputs: Shapes, outputs: Shapes) -> tuple[Shapes, Shapes]:
    (data,) = inputs
    if data is None:
        return inputs, outputs
    p = p if isinstance(p, Extreme) else _CHANNEL
    axes = set(range(len(data))) if p.axis is None else {axis_in(p.axis, len(data))}
    if p.keepdims:
        shape = tuple(1 if i in axes else n for i, n in enumerate(data))
    else:
        shape = tuple(n for i, n in enumerate(data) if i not in axes) or (1,)
    return inputs, [unify(outputs[0], shape, "output")]


def _register_extreme(
    name: str, attributes: type, function: Callable[..., Any]
) -> None:
    def forward(
        p: Any, inputs: Sequence[Array], outputs: Sequence[Array], mode: Mode
    ) -> None:
        axis = (p if isinstance(p, Extreme) else _CHANNEL).axis
        found = np.asarray(function(inputs[0], axis=axis))
        outputs[0][...] = found.reshape(outputs[0].shape)

    register(
        Operator(
            name=name, attributes=attributes, shape=_extreme_shape, forward=forward
        )
    )


_register_extreme("argmax", Extreme, np.argmax)
_register_extreme("argmin", Extreme, np.argmin)
_register_extreme("argmax_channel", NoAttributes, np.argmax)


@dataclass(frozen=True)
class Order:
    """Attributes of sort; no axis means all elements, flattened."""

    axis: int | None = -1
    is_ascend: bool = True


@dataclass(frozen=True)
class ArgOrder(Order):
    """Attributes of argsort."""

    dtype: IndexDtype = "float32"


@dataclass(frozen=True)
class TopK:
    """Attributes of topk; `k` of 0 means all."""

    axis: int | None = -1
    k: int = 1
    ret_typ: Literal["both", "indices", "mask", "value"] = "indices"
    is_ascend: bool = False
    dtype: IndexDtype = "float32"


def _rows(p: Any, data: Array) -> Array:
    """A view with the axis of comparison last."""
    return data.reshape(-1) if p.axis is None else np.moveaxis(data, p.axis, -1)


def _positions(p: Any, rows: Array) -> Array:
    """Where the elements of the output stand, along the last axis."""
    if p.is_ascend:
        order = np.argsort(rows, axis=-1, kind="stable")
    else:
        # From the back, so that of equal elements the first stays first.
        backward = np.argsort(rows[..., ::-1], axis=-1, kind="stable")
        order = rows.shape[-1] - 1 - backward[..., ::-1]
    count = getattr(p, "k", 0)
    return order[..., :count] if count > 0 else order


def _returns(p: Any) -> str:
    """What an operator returns, in topk's words."""
    if isinstance(p, TopK):
        return p.ret_typ
    return "indices" if isinstance(p, ArgOrder) else "value"


def _shape(p: Any, inputs: Shapes, outputs: Shapes) -> tuple[Shapes, Shapes]:
    (data,) = inputs
    if not is_known(data):
        return inputs, outputs
    shape = list(data)
    if _returns(p) != "mask":
        if p.axis is None:
            shape = [int(np.prod(data))]
        axis = axis_in(-1 if p.axis is None else p.axis, len(shape))
        count = getattr(p, "k", 0)
        if count > 0:
            shape[axis] = min(count, shape[axis])
    return inputs, [unify(output, tuple(shape), "output") for output in outputs]


def _dtype(p: Any, inputs: Dtypes, outputs: Dtypes) -> tuple[Dtypes, Dtypes]:
    index = np.dtype(getattr(p, "dtype", "int32"))
    returns = _returns(p)
    if returns == "indices":
        return inputs, [index]
    data = inputs[0] if inputs[0] is not None else outputs[0]
    return [data], [data] if returns == "mask" else [data, index]


def _forward(
    p: Any, inputs: Sequence[Array], outputs: Sequence[Array], mode: Mode
) -> None:
    rows = _rows(p, inputs[0])
    index = _positions(p, rows)
    returns = _returns(p)
    if returns == "mask":
        chosen = np.zeros_like(rows)
        np.put_along_axis(chosen, index, 1, axis=-1)
        if p.axis is not None:
            chosen = np.moveaxis(chosen, -1, p.axis)
        outputs[0][...] = chosen.reshape(outputs[0].shape)
        return
    if returns != "indices":
        _rows(p, outputs[0])[...] = np.take_along_axis(rows, index, axis=-1)
    _rows(p, outputs[-1])[...] = index


def _backward(
    p: Any,
    grads_out: Sequence[Any],
    inputs: Sequence[Any],
    outputs: Sequence[Any],
    grads_in: Sequence[Any],
    mode: Mode,
) -> None:
    target = grads_in[0]
    target[...] = 0
    if _returns(p) in ("value", "both") and grads_out[0] is not None:
        # Views: what is put here lands in `target`, which is contiguous.
        index = _positions(p, _rows(p, inputs[0]))
        rows = _rows(p, grads_out[0])
        np.put_along_axis(_rows(p, target), index, rows, axis=-1)


def _outputs(p: Any) -> tuple[str, ...]:
    one = _returns(p) in ("indices", "mask")
    return ("output",) if one else ("output0", "output1")


for _name, _attributes in (("sort", Order), ("argsort", ArgOrder), ("topk", TopK)):
    register(
        Operator(
            name=_name,
            attributes=_attributes,
            outputs=_outputs,
            visible=lambda p: 2 if _returns(p) == "both" else 1,
            shape=_shape,
            dtype=_dtype,
            forward=_forward,
            backward=None if _name == "argsort" else _backward,
            saved=Saved(inputs=(0,)),
        )
    )
