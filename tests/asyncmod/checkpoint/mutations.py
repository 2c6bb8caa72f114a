"""Checkpoint files changed at random, in bytes and in structure."""

from __future__ import annotations

import random
from copy import deepcopy
from pathlib import Path
from typing import Any

import msgpack
import numpy as np

from asyncmod.checkpoint import CheckpointError, open_checkpoint
from tests.asyncmod.checkpoint.forging import data_of, forge, header_of

INTERESTING: tuple[Any, ...] = (
    *(0, 1, -1, 4, 63, 64, 65, 2**31, 2**32, 2**53, 2**63 - 1, 2**63, 2**64 - 1),
    *(
        True,
        None,
        0.0,
        float("nan"),
        float("inf"),
        "",
        "a",
        "float32",
        "bool",
        "x" * 99,
    ),
    *(b"", b"\0\0\0\0", [], [0], [2, 3], [1] * 40, {}, {"a": 1}),
)


def mutated(file: bytes, random_: random.Random) -> bytes:
    """The file with a few changes: as it is, in its header, or in the fields of it."""
    kind = random_.randrange(3)
    if kind == 0:
        return _changed_bytes(file, random_)
    packed, data = header_of(file), data_of(file)
    if kind == 1:
        packed = _changed_bytes(packed, random_)
    else:
        content = msgpack.unpackb(packed)
        for _ in range(random_.randint(1, 3)):
            _change_field(content, random_)
        packed = msgpack.packb(content)
    if random_.random() < 0.2:
        data = _changed_bytes(data, random_)
    return forge(packed, data)


def load(path: Path, original: bytes, content: bytes) -> bool:
    """Read all of a mutated file; whether it was accepted.

    Only a file whose checksums were made anew may be, and then it must be whole.
    """
    try:
        file = open_checkpoint(path)
    except CheckpointError:
        assert content != original
        return False
    for array in file.values():
        np.array(array)
    if header_of(content) == header_of(original):
        assert content == original, "a change was not noticed"
    return True


def _changed_bytes(content: bytes, random_: random.Random) -> bytes:
    changed = bytearray(content)
    for _ in range(random_.choice((1, 1, 1, 2, 5))):
        place = random_.randrange(len(changed) + 1)
        length = random_.choice((1, 1, 2, 4, 8, 64))
        other = random_.randrange(len(changed) + 1)
        match random_.randrange(7):
            case 0:
                changed[place : place + 1] = random_.randbytes(1)
            case 1 if place < len(changed):
                changed[place] ^= 1 << random_.randrange(8)
            case 2:
                del changed[place : place + length]
            case 3:
                changed[place:place] = random_.randbytes(length)
            case 4:
                changed[place : place + length] = changed[other : other + length]
            case 5:
                del changed[place:]
            case _:
                changed[place : place + length] = random_.choice(
                    (bytes(length), b"\xff" * length)
                )
    return bytes(changed)


def _change_field(content: Any, random_: random.Random) -> None:
    """Set, remove or double one entry somewhere in a tree."""
    while True:
        keys = list(content) if isinstance(content, dict) else range(len(content))
        if not keys:
            return
        key = random_.choice(list(keys))
        inner = content[key]
        if isinstance(inner, dict | list) and inner and random_.random() < 0.7:
            content = inner
            continue
        action = random_.randrange(6)
        if action == 0:
            del content[key]
        elif action == 1 and isinstance(content, list):
            content.insert(key, inner)
        elif action == 2 and isinstance(inner, int):
            content[key] = (inner + random_.choice((-64, -1, 1, 64))) % 2**64
        else:
            content[key] = deepcopy(random_.choice(INTERESTING))
        return
