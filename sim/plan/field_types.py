"""Whether the fields of a Job or a Strategy are of the types that they are declared with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from numbers import Integral, Real
from typing import Any

from ..errors import Fault


def is_whole(value: object) -> bool:
    """Whether ``value`` is a whole number, numpy's too; True and False are none."""
    return isinstance(value, Integral) and not isinstance(value, bool)


def is_number(value: object) -> bool:
    """Whether ``value`` is a real number, which may be infinite or NaN; True and False are none."""
    return isinstance(value, Real) and not isinstance(value, bool)


_TYPES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "int": (is_whole, "a whole number"),
    "float": (is_number, "a number"),
    "bool": (lambda value: isinstance(value, bool), "True or False"),
    "str": (lambda value: isinstance(value, str), "a text"),
    "tuple[int, ...]": (
        lambda value: isinstance(value, tuple) and all(map(is_whole, value)),
        "a tuple of whole numbers",
    ),
}


def type_faults(subject: Any, name: str) -> list[Fault]:
    """Every field of the dataclass ``subject``, called ``name``, that is not of its declared type."""
    found = []
    for field in fields(subject):
        holds, expected = _TYPES.get(str(field.type), (None, ""))
        value = getattr(subject, field.name)
        if holds and not holds(value):
            found.append(Fault(path=f"{name}.{field.name}", found=repr(value), expected=expected))
    return found
