"""Models that are no decoders as JSON files: what `traincast import module` writes, and plans carry.

Reading believes nothing: fields, types and sizes are checked before a Network is made of them.
"""

from __future__ import annotations

import math
import os
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any, get_type_hints

from ..errors import Fault
from ..files.document import Document, printable, raise_faults, shown
from ..files.reader import load_document
from ..files.writer import write_json_atomic
from .model import Model
from .networks.network import Network, NetworkLayer, Operation
from .references import is_reference

SCHEMA = "traincast.model/1"
MAX_BYTES = 64 * 2**20
MAX_LAYERS = 20_000
_HEAD_BYTES = 4096
"""Of a file, in which its schema stands."""

Place = tuple[str | int, ...]


def write_model(model: Model, path: str | os.PathLike[str]) -> None:
    """Write a model as JSON, whole or not at all. Raises UsageError if the file cannot be written.

    >>> import traincast as tc
    >>> tc.write_model(tc.model("resnet50"), "mine.json")
    >>> tc.model("mine.json").parameters == tc.model("resnet50").parameters
    True
    """
    write_json_atomic(path, {"schema": SCHEMA, **model.to_dict()})


def is_model_file(path: str | os.PathLike[str]) -> bool:
    """Whether the file at ``path`` says that it is one; a pipe or a device is not opened."""
    if not Path(path).is_file():
        return False
    try:
        with Path(path).open("rb") as file:
            return f'"{SCHEMA.partition("/")[0]}/'.encode() in file.read(_HEAD_BYTES)
    except OSError:
        return False


def read_model_file(path: str | os.PathLike[str]) -> Model:
    """The model that `write_model` wrote.

    Raises:
        InputError: lists every fault.
    """
    document = load_document(path, max_bytes=MAX_BYTES)
    raise_faults(check_model_file(document))
    return Model.from_dict(document.data)


def check_model_file(document: Document) -> list[Fault]:
    """Everything wrong with a model file."""
    data = document.data
    if not isinstance(data, dict):
        return [document.fault((), shown(data), "an object that describes a model")]
    if data.get("schema") != SCHEMA:
        return [document.fault(("schema",), shown(data.get("schema")), SCHEMA)]
    known = {"schema", "name", "source", "module", "network"}
    faults = [document.fault((key,), "unknown") for key in data if key not in known]
    faults += [
        document.fault((key,), shown(data.get(key)), "text")
        for key in ("name", "source", "module")
        if not isinstance(data.get(key, None if key == "name" else ""), str)
    ]
    if not faults and data.get("module") and not is_reference(data["module"]):
        faults.append(document.fault(("module",), shown(data["module"]), "package.module:function"))
    return faults or network_faults(document, data.get("network"), ("network",))


def network_faults(document: Document, data: object, place: Place) -> list[Fault]:
    """Everything wrong with the JSON form of a network, at most a screenful."""
    found = _shape_faults(document, data, place)
    if not found and isinstance(data, dict):
        network = Network.from_dict(data)
        for where, value, expected in network.faults:
            parts = [int(part) if part.isdecimal() else part for part in where.split(".")]
            found.append(document.fault((*place, *parts), value, expected))
    return found[:MAX_FAULTS]


MAX_FAULTS = 50


def _shape_faults(document: Document, data: object, place: Place) -> list[Fault]:
    found = _record_faults(document, data, place, Network, {"parts"})
    parts = data.get("parts") if isinstance(data, dict) else None
    if found or not isinstance(parts, list) or not len(parts) <= MAX_LAYERS:
        return found or [
            document.fault((*place, "parts"), _size(parts), f"a list of 1 to {MAX_LAYERS} layers")
        ]
    for index, part in enumerate(parts):
        where = (*place, "parts", index)
        found += _record_faults(document, part, where, NetworkLayer, {"operations"})
        operations = part.get("operations", []) if isinstance(part, dict) else []
        if not isinstance(operations, list):
            found.append(document.fault((*where, "operations"), shown(operations), "a list"))
            continue
        for number, one in enumerate(operations):
            found += _record_faults(document, one, (*where, "operations", number), Operation, set())
    return found


def _size(parts: object) -> str:
    return f"{len(parts)} layers" if isinstance(parts, list) else shown(parts)


def _record_faults(
    document: Document, data: object, place: Place, kind: Any, nested: set[str]
) -> list[Fault]:
    """Fields of a dataclass that are missing, unknown or of another type."""
    if not isinstance(data, dict):
        return [document.fault(place, shown(data), "an object")]
    hints = get_type_hints(kind)
    found = [document.fault((*place, printable(str(key))), "unknown") for key in data if key not in hints]
    for one in fields(kind):
        if one.name not in data:
            if one.default is MISSING and one.name != "operations":
                found.append(document.fault((*place, one.name), "missing"))
        elif one.name not in nested and not _fits(data[one.name], hints[one.name]):
            found.append(document.fault((*place, one.name), shown(data[one.name]), _WORDS[hints[one.name]]))
    return found


_WORDS: dict[Any, str] = {
    str: "text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    tuple[int, int]: "two whole numbers",
}


def _fits(value: object, hint: Any) -> bool:
    if hint is bool or isinstance(value, bool):
        return hint is bool and isinstance(value, bool)
    if hint is float:
        return isinstance(value, int | float) and math.isfinite(value)
    if hint is tuple[int, int] or hint == tuple[int, int]:
        return isinstance(value, list) and len(value) == 2 and all(type(v) is int for v in value)
    return isinstance(value, hint)
