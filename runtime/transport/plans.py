"""Plans as bytes and back: what a worker process is to run.

A plan holds nothing but numbers, names and the plain classes listed here, so the codec
follows their fields; a class is an extension whose code is its place in the list.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from operator import index
from typing import Any

import msgpack

from runtime.errors import AsyncmodError
from runtime.graph.plan import (
    Address,
    CsrTensor,
    DefinitionRow,
    NativeRow,
    Plan,
    RowSparseTensor,
    RowSparseUpdateRow,
    Span,
    Tensor,
    UpdateRow,
)

_CLASSES: tuple[type, ...] = (
    Plan,
    DefinitionRow,
    NativeRow,
    UpdateRow,
    Tensor,
    Address,
    Span,
    RowSparseTensor,
    RowSparseUpdateRow,
    CsrTensor,
)
_CODES = {cls: code for code, cls in enumerate(_CLASSES)}
_FIELDS = {cls: tuple(f.name for f in dataclasses.fields(cls)) for cls in _CLASSES}


class PlanError(AsyncmodError, ValueError):
    """Something is no plan, or holds what a plan cannot hold."""


def encode(plan: Plan) -> bytes:
    """The plan as bytes.

    Raises:
        PlanError: it holds something else than the classes of a plan.
    """
    return _pack(plan)


def decode(data: bytes) -> Plan:
    """The plan that was encoded; equal to it.

    Raises:
        PlanError: the bytes are no plan.
    """
    try:
        plan = _unpack(data)
    except PlanError:
        raise
    except Exception as error:  # msgpack has many ways to say that it is nonsense
        raise PlanError(f"not a plan: {type(error).__name__}: {error}") from None
    if not isinstance(plan, Plan):
        raise PlanError(f"not a plan but {type(plan).__name__}")
    return plan


def _pack(value: object) -> bytes:
    packed: bytes = msgpack.packb(value, default=_plain)
    return packed


def _plain(value: Any) -> Any:
    code = _CODES.get(type(value))
    if code is not None:
        fields = [getattr(value, name) for name in _FIELDS[type(value)]]
        return msgpack.ExtType(code, _pack(fields))
    if isinstance(value, Mapping):
        return dict(value)
    try:
        return index(value)  # NumPy's integers
    except TypeError:
        raise PlanError(f"a plan cannot hold {value!r}") from None


def _unpack(data: bytes) -> Any:
    return msgpack.unpackb(
        data,
        use_list=False,
        ext_hook=_object,
        max_array_len=len(data),
        max_map_len=len(data),
        max_str_len=len(data),
        max_bin_len=0,
        max_ext_len=len(data),
    )


def _object(code: int, data: bytes) -> object:
    if not 0 <= code < len(_CLASSES):
        raise PlanError(f"extension {code} is no class of a plan")
    cls, values = _CLASSES[code], _unpack(data)
    if not isinstance(values, tuple) or len(values) != len(_FIELDS[cls]):
        raise PlanError(f"not the fields of a {cls.__name__}")
    return cls(*values)
