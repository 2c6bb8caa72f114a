"""RNNParams: the variables that a cell uses again at every step."""

from __future__ import annotations

from typing import Any

from asyncmod.symbol import Symbol, Variable


class RNNParams:
    """Variables by name, made when they are first asked for.

    Cells that are given the same one share their weights.

    Args:
        prefix: Put before every name.
    """

    def __init__(self, prefix: str = "") -> None:
        self._prefix = prefix
        self._params: dict[str, Symbol] = {}

    def get(self, name: str, **kwargs: Any) -> Symbol:
        """The variable of this name.

        Args:
            name: Its name without the prefix.
            **kwargs: For `Variable`, when it is made.
        """
        name = self._prefix + name
        if name not in self._params:
            self._params[name] = Variable(name, **kwargs)
        return self._params[name]

    def share(self, other: RNNParams) -> None:
        """Let both hold the variables of both; where both have one, ours counts."""
        other._params.update(self._params)
        self._params.update(other._params)
