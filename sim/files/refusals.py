"""What no document may hold, YAML or JSON: the limits, and the faults of what is beyond them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NoReturn

from ..errors import Fault, InputError
from .document import Place, path_text

MAX_DEPTH = 64

MAX_NODES = 100_000
"""Keys and values of a YAML file."""

MAX_DIGITS = 400
"""Digits of a number; Python itself refuses to read more than 4300."""


def line_of(text: str | bytes, position: int) -> int:
    """1-based line of a position."""
    newline: Any = "\n" if isinstance(text, str) else b"\n"
    return text.count(newline, 0, position) + 1


def refuse(file: str, found: str, expected: str = "", hint: str = "", line: int = 0) -> NoReturn:
    """Raise InputError for the file as a whole."""
    raise InputError(Fault(file=file, line=line, path="", found=found, expected=expected, hint=hint))


def number_fault(text: str) -> tuple[str, str] | None:
    """What was found and expected if ``text`` is no number a document may hold."""
    if len(text) > MAX_DIGITS:
        return f"a number of {len(text)} characters", f"at most {MAX_DIGITS}"
    if not math.isfinite(float(text)):
        return f"{text}", "a finite number"
    return None


def sound_tree(data: Any, file: str) -> None:
    """Refuse what is nested deeper than MAX_DEPTH."""
    level: Sequence[Any] = [data]
    for _ in range(MAX_DEPTH):
        level = [
            child
            for value in level
            if isinstance(value, dict | list)
            for child in (value.values() if isinstance(value, dict) else value)
        ]
        if not level:
            return
    if any(isinstance(value, dict | list) for value in level):
        too_deep(file)


def too_deep(file: str, line: int = 0) -> NoReturn:
    refuse(file, f"nesting deeper than {MAX_DEPTH}", f"at most {MAX_DEPTH} levels", line=line)


def duplicate_key(file: str, line: int, place: Place, first_line: int) -> Fault:
    """The fault of a key that comes twice in one mapping."""
    hint = f"the first is on line {first_line}; remove one" if first_line else "remove one"
    return Fault(file=file, line=line, path=path_text(place), found="duplicate key", hint=hint)
