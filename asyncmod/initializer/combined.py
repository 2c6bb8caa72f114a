"""Initializers made of others: by pattern of the name, or from saved parameters."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from asyncmod import log
from asyncmod.initializer.base import (
    Array,
    InitDesc,
    Initializer,
    InitializerError,
    register,
)
from runtime.errors import AsyncmodError


class LoadMismatchError(AsyncmodError, AssertionError):
    """Parameters to load lack one, or hold it in another shape."""


@register
class Mixed:
    """The first initializer whose pattern matches the beginning of the name.

    Args:
        patterns: Regular expressions.
        initializers: One initializer per pattern.

    Raises:
        InitializerError: the lists have different lengths.
    """

    def __init__(
        self, patterns: Sequence[str], initializers: Sequence[Initializer]
    ) -> None:
        if len(patterns) != len(initializers):
            raise InitializerError(
                f"there are {len(patterns)} patterns and {len(initializers)} "
                "initializers: give one initializer per pattern"
            )
        self._rules = [
            (re.compile(pattern), initializer)
            for pattern, initializer in zip(patterns, initializers, strict=True)
        ]

    def __call__(self, name: InitDesc | str, arr: Array) -> None:
        """Fill `arr` in place.

        Raises:
            InitializerError: no pattern matches.
        """
        for pattern, initializer in self._rules:
            if pattern.match(name):
                initializer(name, arr)
                return
        raise InitializerError(
            f"Parameter name {name} did not match any pattern. Consider adding a "
            '".*" pattern at the end with a default Initializer.'
        )


@register
class Load:
    """Copies saved parameters; a default initializer fills those that are missing.

    Args:
        param: Arrays by name, or a file in MXNet's `.params` format; `arg:` and `aux:`
            before names are dropped.
        default_init: Initializer for the others; none: they are an error.
        verbose: Log where each parameter comes from.
    """

    def __init__(
        self,
        param: Mapping[str, Any] | str,
        default_init: Initializer | None = None,
        verbose: bool = False,
    ) -> None:
        if not isinstance(param, Mapping):
            from asyncmod.interop.mxnet_params import load_params

            param = load_params(param)
        self.param: dict[str, Any] = {
            name.removeprefix("arg:").removeprefix("aux:"): array
            for name, array in param.items()
        }
        self.default_init = default_init
        self.verbose = verbose

    def __call__(self, name: InitDesc | str, arr: Array) -> None:
        """Fill `arr` in place.

        Raises:
            LoadMismatchError: the parameter is not there, or of another shape.
        """
        if name in self.param:
            saved = np.asarray(self.param[name])
            if saved.shape != arr.shape:
                raise LoadMismatchError(
                    f"Parameter {name} cannot be initialized from loading. Shape "
                    f"mismatch, target {arr.shape} vs loaded {saved.shape}"
                )
            arr[...] = saved
        elif self.default_init is not None:
            self.default_init(name, arr)
        else:
            raise LoadMismatchError(
                f"Cannot Initialize {name}. Not found in loaded param and no default "
                "Initializer is provided."
            )
        if self.verbose:
            source = "loading" if name in self.param else "default"
            log.DEFAULT.info(f"Initialized {name} by {source}")
