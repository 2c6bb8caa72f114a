"""`mx.nd.sgd_update` and its like: one step of an optimizer on arrays.

For optimizers of one's own; MXNet's are in `mx.optimizer`. States are changed in place,
and so is `weight32`, the float32 copy that `mp_` functions go by.

Source: MXNet's `src/operator/optimizer_op.cc`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np

from asyncmod.errors import ArgumentError, ArgumentTypeError
from asyncmod.nd.array import NDArray
from runtime.ops.update import get_rule

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class _Update:
    """One function.

    Attributes:
        rule: The update rule.
        states: Names of the states that it takes, in the rule's order.
        defaults: What scalars are if they are not given, beside the common ones.
        in_wide: Whether it computes in a float32 copy, which it is given.
    """

    rule: str
    states: tuple[str, ...] = ()
    defaults: Mapping[str, float] = field(default_factory=dict)
    in_wide: bool = False

    @property
    def arrays(self) -> tuple[str, ...]:
        """Names of all array arguments."""
        wide = ("weight32",) if self.in_wide else ()
        return ("weight", "grad", *self.states, *wide)


_MOMENTUM = {"momentum": 0.0}
_ADAM = {"beta1": 0.9, "beta2": 0.999, "epsilon": 1e-8}
_RMSPROP = {"gamma1": 0.95, "epsilon": 1e-8, "clip_weights": -1.0}

UPDATES = {
    "sgd_update": _Update("sgd"),
    "sgd_mom_update": _Update("sgd", ("mom",), _MOMENTUM),
    "mp_sgd_update": _Update("sgd", in_wide=True),
    "mp_sgd_mom_update": _Update("sgd", ("mom",), _MOMENTUM, in_wide=True),
    "nag_mom_update": _Update("nag", ("mom",), _MOMENTUM),
    "mp_nag_mom_update": _Update("nag", ("mom",), _MOMENTUM, in_wide=True),
    "signsgd_update": _Update("signum"),
    "signum_update": _Update("signum", ("mom",), {**_MOMENTUM, "wd_lh": 0.0}),
    "adam_update": _Update("adam", ("mean", "var"), _ADAM),
    "rmsprop_update": _Update("rmsprop", ("n",), _RMSPROP),
    "rmspropalex_update": _Update(
        "rmsprop_centered", ("n", "g", "delta"), {**_RMSPROP, "gamma2": 0.9}
    ),
    "ftrl_update": _Update("ftrl", ("z", "n"), {"lamda1": 0.01, "beta": 1.0}),
}
_COMMON = {"wd": 0.0, "rescale_grad": 1.0, "clip_gradient": -1.0}


@cache
def update_function(name: str) -> Callable[..., NDArray]:
    """The function of that name."""
    update = UPDATES[name]
    rule = get_rule(update.rule)
    defaults = {**_COMMON, **update.defaults}

    def function(*args: Any, out: Any = None, **named: Any) -> NDArray:
        arrays, scalars = _arguments(name, update, args, named)
        scalars = {**defaults, **scalars}
        weight = arrays["weight"]
        wide = arrays.get("weight32", weight)
        states = [arrays[state] for state in update.states]
        after, states_after = rule.apply(
            wide,
            arrays["grad"].astype(wide.dtype, copy=False),
            states,
            [scalars.get(scalar, 0.0) for scalar in rule.hyper],
        )
        for state, value in zip(states, states_after, strict=True):
            state[...] = value
        if update.in_wide:
            wide[...] = after
        result = np.empty_like(weight) if out is None else out
        result[...] = after
        return np.asarray(result).view(NDArray) if out is None else out

    keyword = inspect.Parameter.KEYWORD_ONLY
    positional = inspect.Parameter.POSITIONAL_OR_KEYWORD
    vars(function)["__signature__"] = inspect.Signature(
        [
            *(inspect.Parameter(array, positional) for array in update.arrays),
            inspect.Parameter("lr", keyword),
            *(
                inspect.Parameter(scalar, keyword, default=value)
                for scalar, value in defaults.items()
            ),
            inspect.Parameter("out", keyword, default=None),
        ]
    )
    function.__name__ = function.__qualname__ = name
    function.__module__ = "asyncmod.nd"
    function.__doc__ = (
        f"One step of `{update.rule}`: {', '.join(update.arrays)} are arrays, the rest "
        "numbers.\n\nThe new weight is put into `out`, or given back."
    )
    return function


def _arguments(
    name: str, update: _Update, args: tuple[Any, ...], named: dict[str, Any]
) -> tuple[dict[str, Array], dict[str, float]]:
    """Arrays and numbers, if they are what the function takes.

    Raises:
        ArgumentTypeError: something is missing, or there is no such argument.
        ArgumentError: the arrays have not all one shape.
    """
    known = {"lr", "lazy_update", *_COMMON, *update.defaults}
    if len(args) > len(update.arrays):
        raise ArgumentTypeError(
            f"mx.nd.{name}() takes {len(update.arrays)} arrays by position "
            f"({', '.join(update.arrays)}), not {len(args)}; give numbers by name"
        )
    given = dict(zip(update.arrays, args, strict=False)) | named
    missing = [n for n in (*update.arrays, "lr") if n not in given]
    unknown = [n for n in given if n not in update.arrays and n not in known]
    if missing or unknown:
        what = f"needs {missing[0]}" if missing else f"has no {unknown[0]}"
        raise ArgumentTypeError(f"mx.nd.{name}() {what}")
    arrays = {array: given.pop(array) for array in update.arrays}
    shapes = {array: np.shape(value) for array, value in arrays.items()}
    if len(set(shapes.values())) > 1:
        raise ArgumentError(f"mx.nd.{name}() needs arrays of one shape, not {shapes}")
    given.pop("lazy_update", None)  # here arrays are dense
    return arrays, given
