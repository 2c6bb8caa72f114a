"""Errors that cross from a worker process: as text, into types that exist here.

Only built-in exceptions and those of `runtime.errors` cross as themselves. Anything
else arrives as its nearest base among them, with its own name in the message.
"""

from __future__ import annotations

import builtins
import traceback
from typing import Any

from runtime import errors

_TEXT_LIMIT = 10_000  # characters; all of a frame together fit into one
_NOTES_LIMIT = 20


def _takes_a_message(kind: type[Exception]) -> bool:
    try:
        kind("message")
    except TypeError:  # UnicodeDecodeError and the like
        return False
    return True


_TYPES: dict[str, type[Exception]] = {
    name: kind
    for module in (builtins, errors)
    for name, kind in vars(module).items()
    if isinstance(kind, type)
    and issubclass(kind, Exception)
    and not issubclass(kind, Warning)
    and _takes_a_message(kind)
}


def describe(error: BaseException) -> dict[str, Any]:
    """An error as the fields of a `failed` frame."""
    known = next((t for t in type(error).__mro__ if t in _KNOWN), Exception)
    message = str(error)
    if isinstance(error, KeyError) and len(error.args) == 1:
        message = str(error.args[0])  # `str` would quote it
    own = type(error).__name__
    if known.__name__ != own and not own.startswith("_"):
        message = f"{own}: {message}"
    trace = "".join(traceback.format_tb(error.__traceback__))
    notes = getattr(error, "__notes__", ())[:_NOTES_LIMIT]
    return {
        "type": known.__name__,
        "message": _text(message),
        "notes": [_text(str(note)) for note in notes],
        "trace": _text(trace[-_TEXT_LIMIT:]),
    }


def rebuild(fields: dict[str, Any], place: str) -> Exception:
    """The error that a worker described; its notes say where it comes from.

    Args:
        fields: Of a `failed` frame.
        place: Which worker, for the note above its traceback.
    """
    kind = _TYPES.get(fields["type"], errors.DeviceError)
    error = kind(fields["message"])
    for note in fields["notes"]:
        error.add_note(str(note))
    if fields["trace"]:
        error.add_note(f"in {place}:\n{fields['trace'].rstrip()}")
    return error


def _text(text: str) -> str:
    """Text that every frame can hold: not too long, no lone surrogates."""
    return text[:_TEXT_LIMIT].encode(errors="replace").decode()


_KNOWN = frozenset(_TYPES.values())
