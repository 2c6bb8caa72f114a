"""Trees of arrays and plain data as plain data, with the arrays in a staging.

An array becomes {"array": NAME}; tuples and dicts are marked, too, since plain data has
lists and dicts with text keys alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from asyncmod.checkpoint.staging import Staging


def take_apart(tree: Any, staging: Staging, name: str) -> Any:
    """A tree as plain data; its arrays are copied, under names that begin with `name`.

    Raises:
        TypeError: something in it is neither an array nor plain data.
    """
    if isinstance(tree, np.ndarray):
        target = staging.array(name, tree.shape, tree.dtype.newbyteorder("=").name)
        target[...] = tree
        return {"array": name}
    if isinstance(tree, list | tuple):
        kind = "tuple" if isinstance(tree, tuple) else "list"
        return {
            kind: [take_apart(t, staging, f"{name}/{i}") for i, t in enumerate(tree)]
        }
    if isinstance(tree, dict):
        pairs = enumerate(tree.items())
        return {
            "dict": [[k, take_apart(t, staging, f"{name}/{i}")] for i, (k, t) in pairs]
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
