"""Initializer: which rule fills a parameter, by its attributes and its name."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import numpy as np

from runtime.errors import AsyncmodError

Array = np.ndarray[Any, np.dtype[Any]]
Fill = Callable[[str, Array], None]


class InitializerError(AsyncmodError, ValueError, AssertionError):
    """A parameter cannot be initialized by the rule chosen."""


class InitDesc(str):
    """A parameter's name with its attributes.

    Attributes:
        attrs: The variable's attributes; `__init__` names an initializer of its own.
        global_init: The initializer that was asked first.
    """

    attrs: dict[str, str]
    global_init: Initializer | None

    def __new__(
        cls,
        name: str,
        attrs: Mapping[str, str] | None = None,
        global_init: Initializer | None = None,
    ) -> InitDesc:
        self = super().__new__(cls, name)
        self.attrs = dict(attrs or {})
        self.global_init = global_init
        return self


class Initializer:
    """Base class; a subclass fills weights in `_init_weight(name, arr)`.

    Called with an InitDesc, it obeys the attribute `__init__` or else the end of the
    name: weight, bias (0), gamma (1), beta (0), min (0), max (1). Called with a plain
    string, it takes MXNet's older rules, which know `moving_mean`, `moving_var`,
    `upsampling...` and `stn_loc...` as well.

    Args:
        **kwargs: The settings, for `dumps`.
    """

    def __init__(self, **kwargs: Any) -> None:
        self._kwargs = kwargs

    def dumps(self) -> str:
        """Name and settings as JSON: what the attribute `__init__` holds."""
        return json.dumps([type(self).__name__.lower(), self._kwargs])

    def __call__(self, desc: InitDesc | str, arr: Array) -> None:
        """Fill `arr` in place.

        Raises:
            InitializerError: no rule is for this name, or the shape does not suit it.
        """
        if not isinstance(desc, InitDesc):
            self._legacy_rule(desc)(desc, arr)
            return
        if desc.global_init is None:
            desc.global_init = self
        own = desc.attrs.get("__init__", "")
        fill = create(own)._init_weight if own else self._rule(desc)
        fill(desc, arr)

    def _init_weight(self, name: str, arr: Array) -> None:
        raise NotImplementedError(
            f"{type(self).__name__} must define `_init_weight(self, name, arr)`"
        )

    def _init_bias(self, name: str, arr: Array) -> None:
        arr[...] = 0.0

    def _init_gamma(self, name: str, arr: Array) -> None:
        arr[...] = 1.0

    def _init_beta(self, name: str, arr: Array) -> None:
        arr[...] = 0.0

    def _rule(self, name: str) -> Fill:
        return self._by_end(name, {"bias_quantize": _zero})

    def _legacy_rule(self, name: str) -> Fill:
        if name.startswith("upsampling"):
            return _bilinear
        if name.startswith("stn_loc") and name.endswith("weight"):
            return _zero
        if name.startswith("stn_loc") and name.endswith("bias"):
            return _identity_transform
        return self._by_end(
            name,
            {
                "moving_mean": _zero,
                "moving_var": _one,
                "moving_inv_var": _zero,
                "moving_avg": _zero,
            },
        )

    def _by_end(self, name: str, more: Mapping[str, Fill]) -> Fill:
        rules: dict[str, Fill] = {
            "weight": self._init_weight,
            "bias": self._init_bias,
            "gamma": self._init_gamma,
            "beta": self._init_beta,
            "min": _zero,
            "max": _one,
            **more,
        }
        for end, fill in rules.items():
            if name.endswith(end):
                return fill
        raise InitializerError(
            f"Unknown initialization pattern for {name}. Default initialization is now "
            'limited to "weight", "bias", "gamma" (1.0), and "beta" (0.0).Please use '
            "mx.sym.Variable(init=mx.init.*) to set initialization pattern"
        )


_classes: dict[str, type[Initializer]] = {}


Class = TypeVar("Class", bound=type[Any])


def register(klass: Class) -> Class:
    """Make an initializer class known to `create` by its name in lower case."""
    _classes[klass.__name__.lower()] = klass
    return klass


def alias(*names: str) -> Callable[[Class], Class]:
    """Make an initializer class known by further names."""

    def add(klass: Class) -> Class:
        _classes.update(dict.fromkeys(names, klass))
        return klass

    return add


def create(initializer: Any, **kwargs: Any) -> Initializer:
    """The initializer that is meant.

    Args:
        initializer: An initializer (returned as it is), a registered name, or the
            text of `dumps()`.
        **kwargs: Settings, for a name.

    Raises:
        InitializerError: none has this name, or its settings are not understood.
    """
    if not isinstance(initializer, str):
        given: Initializer = initializer
        return given
    name = initializer
    try:
        if initializer.lstrip().startswith("["):
            name, kwargs = json.loads(initializer)
        return _classes[name.lower()](**kwargs)
    except (KeyError, TypeError, ValueError) as error:
        known = ", ".join(sorted(_classes))
        raise InitializerError(
            f"cannot make an initializer of {initializer!r}: {error}; known are {known}"
        ) from error


def bilinear_kernel(shape: tuple[int, ...]) -> Array:
    """Weights of bilinear upsampling (MXNet's Bilinear), for the last two axes.

    Raises:
        InitializerError: there are fewer than two axes.
    """
    if len(shape) < 2:
        raise InitializerError(f"Bilinear needs at least 2 axes, not the shape {shape}")
    half = np.ceil(shape[-1] / 2.0)
    center = (2 * half - 1 - half % 2) / (2.0 * half)
    x = 1 - np.abs(np.arange(shape[-1]) / half - center)
    y = 1 - np.abs(np.arange(shape[-2]) / half - center)
    return np.broadcast_to(np.outer(y, x), shape)


def _zero(name: str, arr: Array) -> None:
    arr[...] = 0.0


def _one(name: str, arr: Array) -> None:
    arr[...] = 1.0


def _bilinear(name: str, arr: Array) -> None:
    arr[...] = bilinear_kernel(arr.shape)


def _identity_transform(name: str, arr: Array) -> None:
    if arr.shape != (6,):
        raise InitializerError(f"`{name}` must have the shape (6,), not {arr.shape}")
    arr[...] = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0]
