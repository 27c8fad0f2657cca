"""JSON by the standard library, made strict: no duplicate keys, no NaN, no endless numbers, line numbers."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any, NoReturn

from .document import Document, Place, raise_faults
from .refusals import duplicate_key, line_of, number_fault, refuse, sound_tree, too_deep

_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\],:]|[^\s{}\[\],:"]+')


def parse(text: str, file: str) -> Document:
    """Read one JSON document. Raises InputError for anything that is not one, or beyond the limits."""
    has_repeated = False

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        nonlocal has_repeated
        data = dict(items)
        has_repeated = has_repeated or len(data) < len(items)
        return data

    def number(kind: type) -> Any:
        def read(digits: str) -> Any:
            wrong = number_fault(digits)
            if wrong:
                refuse(file, wrong[0], wrong[1], line=line_of(text, text.find(digits)))
            return kind(digits)

        return read

    def constant(name: str) -> NoReturn:
        refuse(file, name, "a finite number", line=line_of(text, text.find(name)))

    try:
        data = json.loads(
            text,
            object_pairs_hook=pairs,
            parse_constant=constant,
            parse_int=number(int),
            parse_float=number(float),
        )
    except json.JSONDecodeError as error:
        found = "ends too early" if error.pos >= len(text.rstrip()) else error.msg[:1].lower() + error.msg[1:]
        refuse(file, f"no JSON: {found}", line=error.lineno)
    except RecursionError:
        too_deep(file)
    sound_tree(data, file)
    lines = _Lines(text)
    if has_repeated:
        raise_faults([duplicate_key(file, line, place, first) for place, line, first in lines.repeated])
    return Document(file=file, data=data, lines=lines)


class _Lines(Mapping[Place, int]):
    """Lines by place, found only when somebody asks, since most files are sound."""

    def __init__(self, text: str):
        self.text = text

    @cached_property
    def _scan(self) -> tuple[dict[Place, int], list[tuple[Place, int, int]]]:
        lines: dict[Place, int] = {}
        repeated: list[tuple[Place, int, int]] = []
        for place, line in _places(self.text):
            if place in lines:
                repeated.append((place, line, lines[place]))
            lines.setdefault(place, line)
        return lines, repeated

    @property
    def repeated(self) -> list[tuple[Place, int, int]]:
        """(place, line, line of the first) of every duplicate key."""
        return self._scan[1]

    def __getitem__(self, place: Place) -> int:
        return self._scan[0][place]

    def __iter__(self) -> Iterator[Place]:
        return iter(self._scan[0])

    def __len__(self) -> int:
        return len(self._scan[0])


def _places(text: str) -> Iterator[tuple[Place, int]]:
    """Every key and list item of sound JSON with its line, in order."""
    place: list[str | int] = []
    line, position, expects_key = 1, 0, False
    for match in _TOKEN.finditer(text):
        line += text.count("\n", position, match.start())
        position, part = match.start(), match[0]
        if part in "}]":
            place.pop()
            expects_key = False
        elif part == ",":
            if isinstance(place[-1], int):
                place[-1] += 1
            else:
                expects_key = True
        elif part == ":":
            continue
        elif expects_key:
            place[-1] = json.loads(part)
            expects_key = False
            yield tuple(place), line
        else:
            if place and isinstance(place[-1], int):
                yield tuple(place), line
            if part in "{[":
                place.append("" if part == "{" else 0)
                expects_key = part == "{"
