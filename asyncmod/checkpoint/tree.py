"""Trees of arrays and plain data as plain data, with the arrays elsewhere.

An array becomes {"array": NAME}; tuples and dicts are marked, too, since plain data has
lists and dicts with text keys alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray


def take_apart(tree: Any, store: Callable[[str, NDArray[Any]], None], name: str) -> Any:
    """A tree as plain data.

    Args:
        tree: Arrays and plain data in lists, tuples and dicts.
        store: Called with each array and its name: `Staging.copy`, or `Staging.keep`
            if nobody changes the arrays.
        name: What the names of its arrays begin with.

    Raises:
        TypeError: something in it is neither an array nor plain data.
    """
    if isinstance(tree, np.ndarray):
        store(name, tree)
        return {"array": name}
    if isinstance(tree, list | tuple):
        kind = "tuple" if isinstance(tree, tuple) else "list"
        return {kind: [take_apart(t, store, f"{name}/{i}") for i, t in enumerate(tree)]}
    if isinstance(tree, dict):
        pairs = enumerate(tree.items())
        return {
            "dict": [[k, take_apart(t, store, f"{name}/{i}")] for i, (k, t) in pairs]
        }
    if tree is None or isinstance(tree, bool | int | float | str | bytes | np.generic):
        return tree
    raise TypeError(f"a {type(tree).__name__} is neither an array nor plain data")


def put_together(plain: Any, arrays: Mapping[str, Any]) -> Any:
    """The tree that `take_apart` took apart; its arrays are copies.

    Raises:
        KeyError, TypeError, ValueError: it did not make this.
    """
    if not isinstance(plain, dict):
        return plain
    ((kind, content),) = plain.items()
    if kind == "array":
        return np.array(arrays[content])
    if kind == "dict":
        return {key: put_together(tree, arrays) for key, tree in content}
    trees = [put_together(tree, arrays) for tree in content]
    return {"tuple": tuple, "list": list}[kind](trees)
