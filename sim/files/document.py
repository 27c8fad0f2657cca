"""A parsed file that knows where everything stands, so that a fault can name its line.

Also turns what pydantic finds into Faults: `file:line: path: found -> expected; hint`.
"""

from __future__ import annotations

import difflib
import json
import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import Fault, InputError

if TYPE_CHECKING:
    from pydantic import BaseModel, ValidationError

Place = tuple[str | int, ...]
"""Keys and indices from the top of a document, as ("wires", 2, "to")."""

MAX_FAULTS = 100
"""A file that is wrong in more places is of another kind; the rest is counted."""

_SHOWN_CHARACTERS = 80


class RefusalError(InputError, ValueError):
    """What a reader of one value raises; a ValueError too, so that pydantic collects it with the others."""

    def __init__(self, found: str, expected: str, hint: str = ""):
        super().__init__(Fault(path="", found=found, expected=expected, hint=hint))


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """What a file holds, as dicts, lists, text, numbers, booleans and None."""

    file: str
    """The file's name as the user gave it."""
    data: Any
    lines: Mapping[Place, int]
    """1-based line of each key or list item."""

    def line(self, place: Place) -> int:
        """The line of ``place``, or of the nearest thing around it."""
        while place and place not in self.lines:
            place = place[:-1]
        return self.lines.get(place, 0)

    def fault(self, place: Place, found: str, expected: str = "", hint: str = "") -> Fault:
        """A Fault at ``place`` of this document."""
        return Fault(
            file=self.file,
            line=self.line(place),
            path=path_text(place),
            found=found,
            expected=expected,
            hint=hint,
        )


def path_text(place: Place) -> str:
    """``place`` as people write it: `wires[2].to`."""
    text = ""
    for part in place:
        text += f"[{part}]" if isinstance(part, int) else f".{_short(part)}" if text else _short(part)
    return text


def shown(value: object) -> str:
    """``value`` as the file says it, short and without control characters."""
    if isinstance(value, dict):
        return f"a mapping of {len(value)} keys"
    if isinstance(value, list | tuple):
        return f"a list of {len(value)}"
    if isinstance(value, str):
        return f"'{_short(value)}'"
    return _short(json.dumps(value, default=str))


def printable(text: str) -> str:
    """``text`` free of control characters, which could steer a terminal."""
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)


def _short(text: str) -> str:
    """A line's worth of ``text``, printable."""
    cut = text if len(text) <= _SHOWN_CHARACTERS else text[: _SHOWN_CHARACTERS - 1] + "…"
    return printable(cut)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A hint with the known word nearest to ``word``; else the known words, where they are few."""
    known = list(known)
    by_lower = {name.lower(): name for name in known}
    near = [
        name
        for spelling in (word.lower(), word.lower().replace("gpu", "accelerator"))
        for name in difflib.get_close_matches(spelling, by_lower, n=1, cutoff=0.6)
    ]
    if near:
        return f"did you mean {by_lower[near[0]]}?"
    return f"known are {', '.join(known)}" if 0 < len(known) <= 16 else ""


def log_doubts(warnings: Sequence[Fault]) -> None:
    """Say what is doubtful in an input that can be used all the same."""
    for fault in warnings:
        logging.getLogger(__name__).warning("warning: %s", fault)


def raise_faults(faults: list[Fault]) -> None:
    """Raise InputError with ``faults`` in the order of their lines; nothing where there are none."""
    if faults:
        raise InputError(in_order(faults))


def in_order(faults: list[Fault]) -> list[Fault]:
    """``faults`` in the order of their lines, each once, and no more than a person reads."""
    ordered = sorted(dict.fromkeys(faults), key=lambda fault: (fault.file, fault.line))
    if len(ordered) > MAX_FAULTS:
        more = Fault(file=ordered[0].file, path="", found=f"{len(ordered) - MAX_FAULTS} more faults")
        ordered = [*ordered[:MAX_FAULTS], more]
    return ordered


_EXPECTED = {
    "missing": None,
    "bool_type": "true or false",
    "string_type": "text",
    "list_type": "a list",
    "tuple_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "mapping_type": "a mapping",
    "model_attributes_type": "a mapping",
    "int_type": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
}


def faults_from_pydantic(
    document: Document, error: ValidationError, schema: type[BaseModel] | None = None
) -> list[Fault]:
    """Every error of ``error`` as a Fault. ``schema`` is the model that refused; it gives suggestions."""
    return [_fault(document, item, schema) for item in error.errors()]


def _fault(document: Document, item: Any, schema: type[BaseModel] | None) -> Fault:
    place, kind, context = _place(document.data, item["loc"]), item["type"], item.get("ctx", {})
    if kind == "extra_forbidden":
        known = _keys(schema, item["loc"][:-1]) if schema else []
        return document.fault(place, "unknown key", hint=did_you_mean(str(place[-1]), known))
    cause = context.get("error")
    if isinstance(cause, InputError):
        own = cause.faults[0]
        return document.fault(place, own.found, own.expected, own.hint)
    if kind == "missing":
        return document.fault(place, "missing", _description(schema, item["loc"]))
    found = shown(item["input"])
    return document.fault(place, found, _EXPECTED.get(kind) or _from_message(item, context))


def _from_message(item: Any, context: dict[str, Any]) -> str:
    """What pydantic expected, in its own words where no others are better."""
    bounds = {"gt": "above", "ge": "at least", "lt": "below", "le": "at most"}
    for bound, words in bounds.items():
        if bound in context:
            return f"{words} {context[bound]}"
    if "expected" in context:
        return str(context["expected"]).replace("'", "")
    message = re.sub(r"^(Value error, |Input should be (a valid )?)", "", item["msg"])
    return message[:1].lower() + message[1:]


def _place(data: Any, loc: tuple[Any, ...]) -> Place:
    """``loc`` without the names of union members and key markers that pydantic puts between."""
    place: list[str | int] = []
    for position, part in enumerate(loc):
        if isinstance(data, dict):
            absent = part not in data
            if absent and position < len(loc) - 1:
                continue
            place.append(part)
            data = None if absent else data[part]
        elif isinstance(data, list) and isinstance(part, int):
            place.append(part)
            data = data[part] if part < len(data) else None
    return tuple(place)


def _keys(schema: type[BaseModel], loc: tuple[Any, ...]) -> list[str]:
    """The keys that ``schema`` knows at ``loc``."""
    found = _model_at(schema, loc)
    if found is None:
        return []
    return [field.alias or name for name, field in found.model_fields.items()]


def _description(schema: type[BaseModel] | None, loc: tuple[Any, ...]) -> str:
    """What the schema says of the field that is missing at ``loc``."""
    found = _model_at(schema, loc[:-1]) if schema else None
    for name, field in (found.model_fields if found else {}).items():
        if loc[-1] in (name, field.alias):
            return field.description or ""
    return ""


def _model_at(schema: type[BaseModel], loc: tuple[Any, ...]) -> type[BaseModel] | None:
    """The model that reads what is at ``loc``, found by walking the fields' types."""
    models: list[type[BaseModel]] = [schema]
    for part in loc:
        fields = [
            field.annotation
            for model in models
            for name, field in model.model_fields.items()
            if part in (name, field.alias)
        ]
        if fields:
            models = [model for annotation in fields for model in _models_in(annotation)]
    return models[0] if models else None


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    from typing import get_args

    if hasattr(annotation, "model_fields"):
        return [annotation]
    return [model for part in get_args(annotation) for model in _models_in(part)]
