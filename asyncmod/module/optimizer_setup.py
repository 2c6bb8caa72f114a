"""From `kvstore`, `optimizer` and `optimizer_params` to what updates the parameters."""

from __future__ import annotations

import difflib
import inspect
import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from asyncmod.errors import ArgumentError, ArgumentTypeError, UnsupportedError
from asyncmod.nd.array import as_given
from asyncmod.optimizer import Optimizer, OptimizerError, create
from runtime.executor.group import Updater
from runtime.graph.update import MASTER

LOCAL_STORES = (
    "local",
    "local_update_cpu",
    "local_allreduce_cpu",
    "local_allreduce_device",
    "device",
    "nccl",
)
BIG_ARRAY = 16 * 1024 * 1024
"""Elements above which MXNet's `local` store leaves the update to the workers."""


def check_kvstore(kvstore: Any) -> None:
    """Check the argument; gradients are summed over the devices whatever it says.

    Raises:
        ArgumentTypeError: neither a store, nor a string, nor None.
        ArgumentError: a string that names no store.
        UnsupportedError: a distributed store.
    """
    if kvstore is None or hasattr(kvstore, "push"):
        return
    if not isinstance(kvstore, str):
        raise ArgumentTypeError(
            f"kvstore must be KVStore, str or None, not {type(kvstore).__name__}"
        )
    if "dist" in kvstore:
        raise UnsupportedError(
            f"kvstore={kvstore!r}: training on several machines is not here yet; it "
            "will be served by worker processes that are joined over MPI. On one "
            "machine give several contexts, context=[mx.cpu(0), mx.cpu(1)], and "
            "kvstore='local'"
        )
    if kvstore not in LOCAL_STORES:
        raise ArgumentError(
            f"unknown kvstore {kvstore!r}; known are {', '.join(LOCAL_STORES)} and None"
        )


def index_names(
    kvstore: Any, names: Sequence[str], sizes: Mapping[str, int], devices: int
) -> dict[int, str]:
    """Parameter name by index, as MXNet numbers them for its optimizers.

    With the update on the store each parameter has one index; else each has one per
    device, of which the first stands for all, since replicas never differ here.
    """
    on_store = devices == 1 or (
        kvstore is not None
        and not (kvstore == "local" and max(sizes.values(), default=0) > BIG_ARRAY)
    )
    if on_store:
        return dict(enumerate(names))
    return {
        index * devices + k: name
        for index, name in enumerate(names)
        for k in range(devices)
    }


def make_optimizer(
    optimizer: Any,
    optimizer_params: Any,
    symbol: Any,
    idx2name: dict[int, str],
    batch_size: int,
) -> Optimizer:
    """The optimizer, told the parameters' names and the batch size.

    An optimizer given by name gets `rescale_grad` = 1 / batch size unless
    `optimizer_params` has one; an object keeps its own, with a warning if it differs.

    Raises:
        ArgumentTypeError: `optimizer` is neither a name nor an Optimizer, or
            `optimizer_params` has a name that it does not take.
        ArgumentError: `optimizer_params` is not a dict or pairs, or holds a NaN.
        OptimizerError: an unknown name, or a setting that cannot be.
    """
    rescale = 1.0 / batch_size
    if isinstance(optimizer, str):
        settings = _settings(optimizer_params)
        settings.setdefault("rescale_grad", rescale)
        _check_keywords(optimizer, settings)
        return create(optimizer, sym=symbol, param_idx2name=idx2name, **settings)
    if not isinstance(optimizer, Optimizer):
        raise ArgumentTypeError(
            "`optimizer` must be a name such as 'sgd' or an mx.optimizer.Optimizer, "
            f"not {type(optimizer).__name__}"
        )
    if not math.isclose(optimizer.rescale_grad, rescale, rel_tol=1e-6):
        warnings.warn(
            "Optimizer created manually outside Module but rescale_grad is not "
            f"normalized to 1.0/batch_size ({optimizer.rescale_grad} vs. {rescale}). "
            "Is this intended?",
            stacklevel=5,
        )
    if not optimizer.idx2name:
        optimizer.idx2name = dict(idx2name.items())
    return optimizer


def _check_keywords(optimizer: str, settings: Mapping[str, Any]) -> None:
    """Refuse settings that the optimizer does not take, and say what it takes."""
    klass = Optimizer.opt_registry.get(optimizer.lower())
    if klass is None:
        return  # `create` says so
    known: set[str] = set()
    for base in klass.__mro__[:-1]:
        parameters = inspect.signature(base).parameters.values()
        known.update(p.name for p in parameters if p.kind is not p.VAR_KEYWORD)
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            break
    for name in settings:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean `{close[0]}`?" if close else "."
            raise ArgumentTypeError(
                f"`optimizer_params` has `{name}`, which {optimizer!r} does not take"
                f"{hint} It takes {', '.join(sorted(known))}"
            )


def _settings(optimizer_params: Any) -> dict[str, Any]:
    try:
        settings = dict(optimizer_params or ())
    except (TypeError, ValueError):
        raise ArgumentError(
            "`optimizer_params` must be a dict or (name, value) pairs, not "
            f"{optimizer_params!r}"
        ) from None
    for name, value in settings.items():
        if isinstance(value, float) and math.isnan(value):
            raise ArgumentError(f"`optimizer_params` has {name} = NaN")
    return settings


def make_updater(
    optimizer: Optimizer,
    indexes: Mapping[str, int],
    has_float16: bool,
    shares: Updater | None = None,
) -> Updater:
    """What the executors are told about an optimizer.

    Args:
        optimizer: The optimizer.
        indexes: Its index of each parameter that is updated.
        has_float16: Whether one of these is float16, and has a float32 copy then if the
            optimizer is to be of `multi_precision`.
        shares: The updater of more parameters whose states are used.
    """
    rows = tuple(indexes.values())
    if optimizer.rule is None:

        def function(row: int, weight: Any, gradient: Any, state: Any) -> None:
            optimizer.update_multi_precision(
                rows[row], as_given(weight), as_given(gradient), state
            )

        def create_state(row: int, weight: Any) -> Any:
            return optimizer.create_state_multi_precision(rows[row], as_given(weight))

        return Updater(
            None,
            tuple(indexes),
            function=function,
            create_state=create_state,
            shares=shares,
        )
    numbers = RuleNumbers(optimizer, rows)
    master = (MASTER,) if optimizer.multi_precision and has_float16 else ()
    return Updater(
        optimizer.rule,
        tuple(indexes),
        states=(*optimizer.state_names, *master),
        hyper=numbers,
        revert=numbers.revert,
        shares=shares,
        lazy=optimizer.lazy_update,
    )


class RuleNumbers:
    """The numbers of an optimizer's rule, one row per parameter, counted per step."""

    def __init__(self, optimizer: Optimizer, rows: tuple[int, ...]) -> None:
        self._optimizer = optimizer
        self._rows = rows
        self._checked: NDArray[np.float64] | None = None

    def __call__(self) -> NDArray[np.float64]:
        """Count a step of every parameter and return float64 [parameters, numbers].

        Raises:
            OptimizerError: one of the numbers is NaN; the step does not count.
        """
        table = self._optimizer.hyper_rows(self._rows)
        if table is not self._checked:
            wrong = np.argwhere(np.isnan(table))
            if wrong.size:
                self.revert()
                row = int(wrong[0, 0])
                index = self._rows[row]
                name = self._optimizer.idx2name.get(index, index)
                raise OptimizerError(
                    f"the numbers of {type(self._optimizer).__name__} for `{name}` "
                    f"hold a NaN: {table[row].tolist()}; look at its "
                    "learning rate, its multipliers and its other settings"
                )
            self._checked = table
        return table

    def revert(self) -> None:
        """Take the latest count back."""
        counts = self._optimizer._index_update_count
        for index in self._rows:
            counts[index] -= 1
            if counts[index] == self._optimizer.begin_num_update:
                del counts[index]
        self._optimizer.num_update = max(
            counts.values(), default=self._optimizer.begin_num_update
        )
