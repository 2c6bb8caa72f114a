"""Every optimizer with its defaults, and with other settings."""

from __future__ import annotations

import inspect
from typing import Any

from asyncmod import optimizer

# Name and settings; the learning rate is 0.1 unless it is said.
CASES: list[tuple[str, dict[str, Any]]] = [
    ("sgd", {}),
    ("sgd", {"momentum": 0.9}),
    ("nag", {}),
    ("nag", {"momentum": 0.9}),
    ("signum", {"momentum": 0.0}),
    ("signum", {"momentum": 0.8, "wd_lh": 0.03}),
    ("dcasgd", {}),
    ("dcasgd", {"momentum": 0.5, "lamda": 0.1}),
    ("adam", {}),
    ("adam", {"beta1": 0.7, "beta2": 0.9, "epsilon": 1e-3}),
    ("adamax", {}),
    ("adamax", {"beta1": 0.5, "beta2": 0.6}),
    ("nadam", {}),
    ("nadam", {"beta1": 0.8, "beta2": 0.9, "schedule_decay": 0.5}),
    ("ftml", {}),
    ("ftml", {"beta1": 0.3, "beta2": 0.9, "epsilon": 1e-3}),
    ("adagrad", {}),
    ("adagrad", {"eps": 0.1}),
    ("groupadagrad", {}),
    ("groupadagrad", {"eps": 0.1}),
    ("adadelta", {}),
    ("adadelta", {"rho": 0.5, "epsilon": 1e-3}),
    ("rmsprop", {}),
    ("rmsprop", {"gamma1": 0.5, "epsilon": 0.1, "clip_weights": 0.7}),
    ("rmsprop", {"centered": True, "gamma1": 0.8, "epsilon": 1e-3}),
    ("rmsprop", {"centered": True, "gamma2": 0.3, "clip_weights": 0.7}),
    ("ftrl", {}),
    ("ftrl", {"lamda1": 0.5, "beta": 0.3}),
    ("lamb", {}),
    ("lamb", {"lower_bound": 5.0, "bias_correction": False, "epsilon": 0.1}),
    ("lamb", {"upper_bound": 0.5}),
    ("lars", {"eta": 0.5}),
    ("lars", {"momentum": 0.9, "eta": 0.1, "eps": 0.2}),
    ("lbsgd", {}),
    ("lbsgd", {"batch_scale": 2, "momentum": 0.9, "updates_per_epoch": 2}),
    ("lbsgd", {"batch_scale": 3, "warmup_strategy": "power2", "begin_epoch": 1}),
    ("lbsgd", {"batch_scale": 2, "warmup_strategy": "sqrt"}),
    ("lbsgd", {"warmup_strategy": "lars", "momentum": 0.5}),
    ("sgld", {}),
]

NAMES = list(dict.fromkeys(name for name, _ in CASES))


def label(case: tuple[str, dict[str, Any]]) -> str:
    """How a case is called in a test's name."""
    name, settings = case
    return "-".join([name, *(f"{key}={value}" for key, value in settings.items())])


def defaults(name: str) -> dict[str, Any]:
    """The settings of an optimizer's own, as its constructor has them."""
    klass = optimizer.Optimizer.opt_registry[name]
    parameters = inspect.signature(klass).parameters.values()
    return {p.name: p.default for p in parameters if p.default is not p.empty}


def make(name: str, settings: dict[str, Any], **common: Any) -> optimizer.Optimizer:
    """An optimizer; unless said, its learning rate is 0.1."""
    return optimizer.create(name, **{"learning_rate": 0.1} | settings | common)
