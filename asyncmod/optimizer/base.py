"""Optimizer: learning rates, weight decay and counts, per parameter.

A subclass either names a `rule` and gives its scalars in `hyper`: devices run the
rule fused with the sum of gradients, and `update` applies it to plain arrays. Or it
defines `update` itself, in NumPy.

Next: `runtime.ops.update`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from asyncmod import log
from asyncmod.optimizer.settings import (
    OptimizerError,
    bound_or_none,
    check_bound,
    check_finite,
    check_learning_rate,
)
from runtime.ops.update import get_rule
from runtime.row_sparse import RowSparseNDArray

Array = np.ndarray[Any, np.dtype[Any]]
Index = int | str
"""What names a parameter to the optimizer: its position, or its name."""


class AnnotatedSymbol(Protocol):
    """A symbol whose variables may carry `__lr_mult__` and `__wd_mult__`."""

    def attr_dict(self) -> Mapping[str, Mapping[str, str]]: ...

    def list_arguments(self) -> Sequence[str]: ...


class Optimizer:
    """Base class of optimizers.

    Args:
        rescale_grad: Gradients are multiplied by this before all else.
        param_idx2name: Names of the parameters by index.
        wd: Weight decay; 0 for parameters whose name ends neither in `_weight` nor in
            `_gamma`.
        clip_gradient: Rescaled gradients are cut off at plus and minus this; None,
            0 and negative values mean no cut.
        learning_rate: 0.01, or the scheduler's `base_lr`, unless given.
        lr_scheduler: Function of the number of updates that gives the learning rate;
            a `learning_rate` given beside it becomes its `base_lr`.
        sym: Symbol whose variables' `__lr_mult__` and `__wd_mult__` are honored.
        begin_num_update: Where the count of updates begins.
        multi_precision: Keep a float32 copy of float16 weights and update that.
        param_dict: Objects with `lr_mult` and `wd_mult`, by index; they win.

    Raises:
        OptimizerError: a number is NaN or infinite, or the learning rate negative.
    """

    rule: str | None = None
    """Name of the update rule that devices run; None: `update` is called."""

    definition: str | None = None
    """Name of the update rule that `update` applies: `rule`, also where that became
    None because a subclass has an `update` of its own."""

    decaying: ClassVar[tuple[str, ...]] = ("_weight", "_gamma")
    """How the names of parameters end that weight decay is for."""

    lazy_update: bool = False
    """Whether only the rows of a row-sparse gradient are updated, if `rule` can."""

    opt_registry: ClassVar[dict[str, type[Optimizer]]] = {}

    def __init_subclass__(cls) -> None:
        # An `update` of its own must not be bypassed by the fused form of the base.
        if "rule" in cls.__dict__:
            cls.definition = cls.rule
        elif "update" in cls.__dict__:
            cls.rule = None

    def __init__(
        self,
        rescale_grad: float = 1.0,
        param_idx2name: Mapping[Index, str] | None = None,
        wd: float = 0.0,
        clip_gradient: float | None = None,
        learning_rate: float | None = None,
        lr_scheduler: Any = None,
        sym: AnnotatedSymbol | None = None,
        begin_num_update: int = 0,
        multi_precision: bool = False,
        param_dict: Mapping[Index, Any] | None = None,
    ) -> None:
        self.rescale_grad = check_finite("rescale_grad", rescale_grad)
        self.wd = check_finite("wd", wd)
        self.clip_gradient = check_bound("clip_gradient", clip_gradient)
        if learning_rate is not None:
            check_learning_rate(learning_rate)
        if lr_scheduler is not None and not callable(lr_scheduler):
            raise OptimizerError(
                "`lr_scheduler` must be a function of num_update, not "
                f"{type(lr_scheduler).__name__}"
            )
        if lr_scheduler is not None and learning_rate is not None:
            if getattr(lr_scheduler, "base_lr", None) != learning_rate:
                log.DEFAULT.warning(
                    "learning rate from ``lr_scheduler`` has been overwritten by "
                    "``learning_rate`` in optimizer."
                )
            lr_scheduler.base_lr = learning_rate
        if learning_rate is None:
            learning_rate = getattr(lr_scheduler, "base_lr", 0.01)
        self.lr = learning_rate
        self.lr_scheduler = lr_scheduler
        self.multi_precision = multi_precision
        self.begin_num_update = begin_num_update
        self.num_update = begin_num_update
        self._device_counts: dict[int, dict[Index, int]] = {0: {}}
        self._index_update_count = self._device_counts[0]
        self.idx2name = dict(param_idx2name or {})
        self.param_dict = dict(param_dict or {})
        self.sym = sym
        self.lr_mult: dict[Index, float] = {}
        self.wd_mult: dict[Index, float] = {}
        self.set_lr_mult({})
        self.set_wd_mult({})

    @staticmethod
    def register(klass: type[Optimizer]) -> type[Optimizer]:
        """Make an optimizer class known to `create` by its name in lower case."""
        return register(klass)

    @staticmethod
    def create_optimizer(name: str, **kwargs: Any) -> Optimizer:
        """See `create`."""
        return create(name, **kwargs)

    @property
    def state_names(self) -> tuple[str, ...]:
        """Names of the arrays, each of the weight's shape, that `rule` keeps.

        Zero at first; the first ones of `UpdateRule.states`.
        """
        return ()

    def hyper(self, index: Index) -> tuple[float, ...]:
        """Count an update of `index`; give `rule`'s scalars for it, in its order."""
        raise NotImplementedError(
            f"{type(self).__name__} must define `hyper(self, index)`, which returns "
            "the scalars of its `rule`"
        )

    def hyper_rows(self, indexes: Sequence[Index]) -> NDArray[np.float64]:
        """`hyper` of each index in turn, as the rows of one array.

        The array may be given again by a later call: do not change it.
        """
        return np.array([self.hyper(index) for index in indexes], np.float64)

    def create_state(self, index: Index, weight: Array) -> Any:
        """What is kept for one weight from update to update: arrays, or None.

        With a rule: None, an array or a tuple of them, by `state_names`.
        """
        zeros = tuple(np.zeros_like(weight) for _ in self.state_names)
        return zeros if len(zeros) > 1 else (zeros[0] if zeros else None)

    def create_state_multi_precision(self, index: Index, weight: Array) -> Any:
        """`create_state`; for a float16 weight with its float32 copy, if wanted."""
        if self._has_master_copy(weight):
            master = weight.astype(np.float32)
            return self.create_state(index, master), master
        return self.create_state(index, weight)

    def update(self, index: Index, weight: Array, grad: Any, state: Any) -> None:
        """Update `weight` and `state` in place.

        Args:
            index: Which parameter it is.
            weight: The parameter.
            grad: Its gradient, of the same shape, row-sparse perhaps; left as it is.
            state: What `create_state` gave.
        """
        if self.definition is None:
            raise NotImplementedError(
                f"{type(self).__name__} must define `update(index, weight, grad, "
                "state)`, or name a `rule`"
            )
        states = (state,) if isinstance(state, np.ndarray) else tuple(state or ())
        rule, hyper = get_rule(self.definition), self.hyper(index)
        rows: Any = ...
        if isinstance(grad, RowSparseNDArray):
            if self.lazy_update and rule.by_rows:
                rows, grad = grad.indices, grad.values
            else:
                grad = grad.asnumpy()
        with np.errstate(all="ignore"):
            new_weight, new_states = rule.apply(
                weight[rows], grad, [state[rows] for state in states], hyper
            )
        weight[rows] = new_weight
        for kept, new in zip(states, new_states, strict=True):
            kept[rows] = new

    def update_multi_precision(
        self, index: Index, weight: Array, grad: Any, state: Any
    ) -> None:
        """`update`; on the float32 copy where there is one."""
        if self._has_master_copy(weight):
            inner, master = state
            self.update(index, master, grad.astype(np.float32), inner)
            weight[...] = master
        else:
            self.update(index, weight, grad, state)

    @property
    def learning_rate(self) -> float:
        """The present learning rate, before multipliers."""
        if self.lr_scheduler is None:
            return self.lr
        return self._scheduled()

    def set_learning_rate(self, lr: float) -> None:
        """Set the learning rate.

        Raises:
            UserWarning: a scheduler decides on it.
            OptimizerError: it is NaN, infinite or negative.
        """
        if self.lr_scheduler is not None:
            raise UserWarning(
                "LRScheduler of the optimizer has already been defined. Note that "
                "set_learning_rate can mutate the value of the learning rate of the "
                "optimizer only when the LRScheduler of the optimizer is undefined."
            )
        self.lr = check_learning_rate(lr)

    def set_lr_mult(self, args_lr_mult: Mapping[Index, float]) -> None:
        """Set multipliers of the learning rate by parameter; they win over `sym`'s."""
        self.lr_mult = self._multipliers("__lr_mult__")
        self.lr_mult.update(args_lr_mult)

    def set_wd_mult(self, args_wd_mult: Mapping[Index, float]) -> None:
        """Set multipliers of the weight decay by parameter; they win over `sym`'s."""
        self.wd_mult = {
            name: 0.0
            for name in self.idx2name.values()
            if not name.endswith(self.decaying)
        }
        self.wd_mult.update(self._multipliers("__wd_mult__"))
        self.wd_mult.update(args_wd_mult)

    def get_state(self) -> dict[str, Any]:
        """Counts, learning rate and the scheduler's state, as plain data."""
        scheduler = getattr(self.lr_scheduler, "get_state", None)
        return {
            "learning_rate": self.lr,
            "rescale_grad": self.rescale_grad,
            "num_update": self.num_update,
            "counts": [
                [device, [[index, count] for index, count in counts.items()]]
                for device, counts in self._device_counts.items()
            ],
            "scheduler": scheduler() if scheduler is not None else None,
        }

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Continue from `get_state`, with its learning rate and schedule."""
        self.lr = state["learning_rate"]
        self.rescale_grad = state["rescale_grad"]
        self.num_update = state["num_update"]
        self._device_counts = {
            device: dict(counts) for device, counts in state["counts"]
        }
        self._set_current_context(0)
        if state["scheduler"] is not None and self.lr_scheduler is not None:
            self.lr_scheduler.set_state(state["scheduler"])

    def go_on_from(self, state: Mapping[str, Any]) -> None:
        """Take over the counts of `get_state`.

        Learning rate, schedule and `rescale_grad` stay those that this optimizer was
        made with, as they do where MXNet loads states: who resumes may change them.
        """
        self.set_state(
            {
                **state,
                "learning_rate": self.lr,
                "rescale_grad": self.rescale_grad,
                "scheduler": None,
            }
        )

    def _set_current_context(self, device_id: int) -> None:
        """Count for this device from now on."""
        self._index_update_count = self._device_counts.setdefault(device_id, {})

    def _update_count(self, index: Index | Sequence[Index]) -> None:
        """Count an update of one index or of several."""
        indices = [index] if isinstance(index, int | str) else index
        counts, latest = self._index_update_count, self.num_update
        for i in indices:
            counts[i] = count = counts.get(i, self.begin_num_update) + 1
            if count > latest:
                latest = count
        self.num_update = latest

    def _common(self, index: Index) -> tuple[float, float, float, float]:
        """Count an update; give the scalars that all rules begin with.

        These are the learning rate, weight decay, `rescale_grad`, and the bound of
        rescaled gradients or -1.
        """
        self._update_count(index)
        lr, wd = self._get_lr(index), self._get_wd(index)
        return lr, wd, self.rescale_grad, self._clip()

    def _get_lr(self, index: Index) -> float:
        """Learning rate of one parameter."""
        lr = self.lr if self.lr_scheduler is None else self._scheduled()
        return lr * self._multiplier(index, "lr_mult", self.lr_mult)

    def _get_wd(self, index: Index) -> float:
        """Weight decay of one parameter."""
        return self.wd * self._multiplier(index, "wd_mult", self.wd_mult)

    def _clip(self) -> float:
        """Bound of rescaled gradients; -1 for none."""
        return bound_or_none(self.clip_gradient)

    def _has_master_copy(self, weight: Array) -> bool:
        return self.multi_precision and weight.dtype == np.float16

    def _scheduled(self) -> float:
        lr = self.lr_scheduler(self.num_update)
        if not (math.isfinite(lr) and lr >= 0):
            raise OptimizerError(
                f"{type(self.lr_scheduler).__name__} gave the learning rate {lr} at "
                f"num_update {self.num_update}; it must be finite and not negative"
            )
        return float(lr)

    def _multipliers(self, attribute: str) -> dict[Index, float]:
        """The attribute's values in the symbol, by argument."""
        if self.sym is None:
            return {}
        attributes = self.sym.attr_dict()
        return {
            name: float(attributes[name][attribute])
            for name in self.sym.list_arguments()
            if attribute in attributes.get(name, {})
        }

    def _multiplier(
        self, index: Index, field: str, multipliers: Mapping[Index, float]
    ) -> float:
        if index in self.param_dict:
            return float(getattr(self.param_dict[index], field))
        if index in multipliers:
            return multipliers[index]
        return multipliers.get(self.idx2name.get(index, index), 1.0)


def register(klass: type[Optimizer]) -> type[Optimizer]:
    """Make an optimizer class known to `create` by its name in lower case."""
    Optimizer.opt_registry[klass.__name__.lower()] = klass
    return klass


def create(name: str | Optimizer, **kwargs: Any) -> Optimizer:
    """An optimizer by its registered name; an Optimizer is returned as it is.

    Raises:
        OptimizerError: no optimizer has this name, or a setting is not possible.
    """
    if isinstance(name, Optimizer):
        return name
    klass = Optimizer.opt_registry.get(str(name).lower())
    if klass is None:
        known = ", ".join(sorted(Optimizer.opt_registry))
        raise OptimizerError(f"Cannot find optimizer {name}; known are {known}")
    return klass(**kwargs)
