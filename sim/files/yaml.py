"""YAML 1.2 from ruamel's event stream: plain data, line numbers, nothing that expands or executes."""

from __future__ import annotations

from typing import Any

from ..errors import Fault
from .document import Document, Place, raise_faults
from .refusals import MAX_DEPTH, MAX_NODES, duplicate_key, number_fault, refuse, too_deep

_TAG = "tag:yaml.org,2002:"


def parse(text: str, file: str) -> Document:
    """Read one YAML document.

    Raises:
        InputError: not YAML, or YAML with what a data file does not need (anchors, tags, merge keys,
            several documents), or duplicate keys, NaN, or more than the limits.
    """
    from ruamel.yaml import YAML
    from ruamel.yaml.error import MarkedYAMLError, YAMLError

    yaml = YAML(typ="safe", pure=True)
    builder = _Builder(file, yaml.resolver)
    try:
        for event in yaml.parse(text):
            builder.take(event)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        refuse(file, f"no YAML: {error.problem or error.context}", line=mark.line + 1 if mark else 0)
    except (YAMLError, RecursionError, ValueError, IndexError, TypeError) as error:
        refuse(file, f"no YAML: {' '.join(str(error).split())[:100]}")
    return builder.document()


class _Builder:
    """Builds the data event by event, with its own stack."""

    def __init__(self, file: str, resolver: Any):
        self.file, self.resolver = file, resolver
        self.stack: list[Any] = []
        self.place: list[str | int | None] = []
        """By level of the stack: the key or index that the next value gets; None before a key."""
        self.lines: dict[Place, int] = {}
        self.faults: list[Fault] = []
        self.root: Any = None
        self.nodes = 0
        self.documents = 0

    def document(self) -> Document:
        raise_faults(self.faults)
        return Document(file=self.file, data=self.root, lines=self.lines)

    def take(self, event: Any) -> None:
        name, line = type(event).__name__, event.start_mark.line + 1
        if name == "DocumentStartEvent":
            self.documents += 1
            if self.documents > 1:
                refuse(self.file, "a second document", "one", line=line)
        elif name == "AliasEvent" or getattr(event, "anchor", None):
            refuse(self.file, "an anchor or alias (& or *)", "every value written out", line=line)
        elif getattr(event, "tag", None):
            refuse(self.file, f"the tag {event.tag}", "plain values", line=line)
        elif name == "ScalarEvent":
            self._count(line)
            self._scalar(event, line)
        elif name in ("MappingStartEvent", "SequenceStartEvent"):
            self._count(line)
            self._open({} if name == "MappingStartEvent" else [], line)
        elif name in ("MappingEndEvent", "SequenceEndEvent"):
            self.stack.pop()
            self.place.pop()
            self._value_done()

    def _count(self, line: int) -> None:
        self.nodes += 1
        if self.nodes > MAX_NODES:
            refuse(self.file, f"more than {MAX_NODES} values", "a smaller file", line=line)

    def _open(self, container: Any, line: int) -> None:
        if self.stack and isinstance(self.stack[-1], dict) and self.place[-1] is None:
            refuse(self.file, "a list or mapping as a key", "text", line=line)
        if len(self.stack) >= MAX_DEPTH:
            too_deep(self.file, line)
        self._add(container, line)
        self.stack.append(container)
        self.place.append(None)

    def _scalar(self, event: Any, line: int) -> None:
        if self.stack and isinstance(self.stack[-1], dict) and self.place[-1] is None:
            self._key(event, line)
        else:
            self._add(self._value(event, line), line)

    def _key(self, event: Any, line: int) -> None:
        key = event.value
        if event.implicit[0] and key == "<<":
            refuse(self.file, "a merge key (<<)", "every key written out", line=line)
        place = (*self._here(), key)
        if key in self.stack[-1]:
            self.faults.append(duplicate_key(self.file, line, place, self.lines.get(place, 0)))
        self.lines.setdefault(place, line)
        self.place[-1] = key

    def _here(self) -> Place:
        """Where the innermost container stands."""
        return tuple(self.place[:-1])  # type: ignore[arg-type]

    def _add(self, value: Any, line: int) -> None:
        """Put ``value`` where the next one belongs."""
        if not self.stack:
            self.root = value
            return
        container = self.stack[-1]
        if isinstance(container, list):
            self.place[-1] = len(container)
            container.append(value)
        else:
            container.setdefault(self.place[-1], value)
        self.lines.setdefault(tuple(self.place), line)  # type: ignore[arg-type]
        if not isinstance(value, dict | list):
            self._value_done()

    def _value_done(self) -> None:
        if self.stack and isinstance(self.stack[-1], dict):
            self.place[-1] = None

    def _value(self, event: Any, line: int) -> Any:
        """The scalar by YAML 1.2's core schema; dates stay text."""
        from ruamel.yaml.nodes import ScalarNode

        text: str = event.value
        tag = str(self.resolver.resolve(ScalarNode, text, event.implicit)).removeprefix(_TAG)
        if tag == "null":
            return None
        if tag == "bool":
            return text.lower() == "true"
        if tag not in ("int", "float"):
            return text
        return self._number(text, tag, line)

    def _number(self, text: str, tag: str, line: int) -> int | float:
        plain = text.lower().replace("_", "").replace(".inf", "inf").replace(".nan", "nan")
        based = tag == "int" and plain.lstrip("+-")[:2] in ("0x", "0o", "0b")
        wrong = number_fault("0" * len(plain) if based else plain)
        if wrong:
            last = self.place[-1:]
            if self.stack and isinstance(self.stack[-1], list):
                last = [len(self.stack[-1])]
            place: Place = (*self._here(), *last)  # type: ignore[assignment]
            self.faults.append(Document(file=self.file, data=None, lines={place: line}).fault(place, *wrong))
            return 0
        if based:
            return int(plain, 0)
        return int(plain) if tag == "int" else float(plain)
