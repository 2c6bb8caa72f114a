"""Pickles of plain data, read without running them.

A pickle is a program that may call any function of Python. Here its instructions are
decoded by `pickletools` and followed one by one, as far as they build dicts, lists,
tuples, numbers, texts and bytes. What it asks to be called is written down as a `Call`,
and nothing is called. All that comes of it is in proportion to its bytes.
"""

from __future__ import annotations

import pickletools
from dataclasses import dataclass
from typing import Any


class PickledDataError(ValueError):
    """Bytes are no pickle, or have instructions for something else than plain data."""


@dataclass(eq=False)
class Function:
    """A function or class that a pickle names.

    Attributes:
        name: Its module and its name, such as "builtins.bytearray".
    """

    name: str


@dataclass(eq=False)
class Call:
    """A call that a pickle asks for, and the state that the result is to be given.

    Attributes:
        function: Name of the function, see `Function`.
        arguments: Its arguments.
        state: What the object would get; None if nothing.
    """

    function: str
    arguments: tuple[Any, ...]
    state: Any = None


def read(content: bytes) -> Any:
    """What a pickle of any protocol holds.

    Raises:
        PickledDataError: it is damaged, or holds something else than plain data and
            calls.
    """
    stack = _Stack()
    end = -1
    try:
        for instruction, argument, position in pickletools.genops(content):
            assert position is not None
            stack.follow(instruction.name, argument)
            end = position + 1
        if end != len(content):
            raise ValueError(f"it ends at byte {end} of {len(content)}")
        (result,) = stack.values
    except (ValueError, TypeError, LookupError) as error:
        raise PickledDataError(f"this is no pickle of plain data: {error}") from None
    return result


_LITERALS = {
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4"),
    *("FLOAT", "BINFLOAT", "STRING", "BINSTRING", "SHORT_BINSTRING"),
    *("UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
    *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
}
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}


class _Stack:
    """The values that the instructions so far have left, and what was memorized."""

    def __init__(self) -> None:
        self.values: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}

    def follow(self, name: str, argument: Any) -> None:
        """Do what one instruction says."""
        push = self.values.append
        match name:
            case "PROTO" | "FRAME" | "STOP":
                pass
            case "MARK":
                self._marks.append(len(self.values))
            case "EMPTY_DICT":
                push({})
            case "EMPTY_LIST":
                push([])
            case "DICT":
                push(_pairs(self._marked()))
            case "LIST":
                push(self._marked())
            case "TUPLE":
                push(tuple(self._marked()))
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                push(tuple(self._last(int(name[-1]))))
            case "SETITEM":
                self._update(_pairs(self._last(2)))
            case "SETITEMS":
                self._update(_pairs(self._marked()))
            case "APPEND":
                self._extend(self._last(1))
            case "APPENDS":
                self._extend(self._marked())
            case "MEMOIZE":
                self._memo[len(self._memo)] = self.values[-1]
            case "PUT" | "BINPUT" | "LONG_BINPUT":
                self._memo[argument] = self.values[-1]
            case "GET" | "BINGET" | "LONG_BINGET":
                push(self._memo[argument])
            case "GLOBAL":
                push(Function(argument.replace(" ", ".")))
            case "STACK_GLOBAL":
                push(Function(".".join(self._last(2))))
            case "REDUCE" | "NEWOBJ":
                push(_call(*self._last(2)))
            case "BUILD":
                (state,) = self._last(1)
                if not isinstance(self.values[-1], Call):
                    raise ValueError("a state for what was not made by a call")
                self.values[-1].state = state
            case _ if name in _CONSTANTS:
                push(_CONSTANTS[name])
            case _ if name in _LITERALS:
                push(argument)
            case _:
                raise ValueError(f"its instruction {name}")

    def _last(self, count: int) -> list[Any]:
        """Take the last so many values."""
        if count > len(self.values):
            raise ValueError("an instruction lacks its operands")
        taken = self.values[-count:]
        del self.values[-count:]
        return taken

    def _marked(self) -> list[Any]:
        """Take the values behind the last mark."""
        begin = self._marks.pop()
        taken = self.values[begin:]
        del self.values[begin:]
        return taken

    def _update(self, pairs: dict[Any, Any]) -> None:
        target = self.values[-1]
        if not isinstance(target, dict):
            raise ValueError(f"items of a {type(target).__name__}")
        target.update(pairs)

    def _extend(self, values: list[Any]) -> None:
        target = self.values[-1]
        if not isinstance(target, list):
            raise ValueError(f"elements of a {type(target).__name__}")
        target.extend(values)


def _pairs(values: list[Any]) -> dict[Any, Any]:
    keys = values[::2]
    if not all(isinstance(key, int | str) for key in keys):
        raise ValueError("a key that is neither a number nor a text")
    return dict(zip(keys, values[1::2], strict=True))


def _call(function: Any, arguments: Any) -> Call:
    if not (isinstance(function, Function) and isinstance(arguments, tuple)):
        raise ValueError("a call of what is no function")
    return Call(function.name, arguments)
