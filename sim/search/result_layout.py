"""Which files of a directory of results are ours: only these are ever replaced or removed in it.

`result.json` lists them in ``files``. It may come from others, so a name counts only if it is one of the
layout (`sim/search/result.py`): nothing outside the directory, nothing of a user's own.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TypeGuard

from ..errors import InputError, UsageError
from ..files.reader import load_document
from ..files.writer import check_output, check_places, make_directory

SCHEMA = "traincast.result/1"
RESULT, CLUSTER, REPORT, MEASUREMENTS = "result.json", "cluster.yaml", "report.html", "measurements.json"
MAX_BYTES = 64 * 2**20
_NUMBERED = r"plans/[1-9]\d{0,5}\.json|(predicted|measured)/[1-9]\d{0,5}\.trace\.json\.gz"
_LAYOUT = re.compile("|".join([*map(re.escape, (RESULT, CLUSTER, REPORT, MEASUREMENTS)), _NUMBERED]))


def plan_name(number: int) -> str:
    """Of the file of the plan ranked ``number``-th, from 1."""
    return f"plans/{number}.json"


def trace_name(source: str, number: int) -> str:
    """Of the trace, ``source`` `predicted` or `measured`, of the plan ranked ``number``-th."""
    return f"{source}/{number}.trace.json.gz"


def prepare_directory(directory: Path, force: bool, *, plans: int = 0, measured: bool = False) -> None:
    """Make ``directory``, and refuse it now if a result could not be written there later.

    ``plans`` is how many will be ranked at most, ``measured`` whether some will be run.

    Raises:
        UsageError: it holds results and ``force`` is not given, files of others are at the places of the
            new ones, or it cannot be written.
    """
    own = own_files(directory, force)
    names = [RESULT, CLUSTER, REPORT, *([MEASUREMENTS] if measured else [])]
    for number in range(1, plans + 1):
        names += [plan_name(number), trace_name("predicted", number)]
        names += [trace_name("measured", number)] if measured else []
    check_places(make_directory(directory), names, own)


def own_files(directory: Path, force: bool) -> frozenset[str]:
    """Files of the result in ``directory`` that ``force`` allows to replace; none where there is no result.

    Results written before ``files`` was listed own what their other fields name, and the report.

    Raises:
        UsageError: there is a `result.json`, and ``force`` is not given or it is none of ours.
    """
    path = directory / RESULT
    if not path.exists() and not path.is_symlink():
        return frozenset()
    if not force:
        raise UsageError(f"{path} exists; give another -o, or --force to replace it")
    check_output(path)
    try:
        document = load_document(path, max_bytes=MAX_BYTES).data
    except InputError as error:
        raise UsageError(f"{error}; {_kept(path)}") from error
    if not isinstance(document, dict) or document.get("schema") != SCHEMA:
        raise UsageError(f"{path}: schema is not {SCHEMA}; {_kept(path)}")
    listed: Iterable[object] = (
        document["files"] if isinstance(document.get("files"), list) else _named(document)
    )
    return frozenset({RESULT, *(name for name in listed if _is_ours(name))})


def _kept(path: Path) -> str:
    return f"only a result of traincast is replaced: move {path.name} away, or give another -o"


def _is_ours(name: object) -> TypeGuard[str]:
    return isinstance(name, str) and _LAYOUT.fullmatch(name) is not None


def _named(document: dict[str, Any]) -> Iterator[object]:
    """What an older result names in its fields, whatever that may be."""
    yield REPORT
    yield document.get("measurements")
    cluster, plans = document.get("cluster"), document.get("plans")
    if isinstance(cluster, dict):
        yield cluster.get("file")
    for entry in plans if isinstance(plans, list) else []:
        if isinstance(entry, dict):
            yield from (entry.get("plan"), entry.get("predicted_trace"), entry.get("measured_trace"))
