"""A table of published measurements: CSV, plain or gzip-compressed, one row a measurement.

Cells stay text here; what they mean is decided in `case.py`. Tables that come with the program are found by
their name.
"""

from __future__ import annotations

import csv
import gzip
import io
import os
import zlib
from dataclasses import dataclass
from pathlib import Path

from ..errors import Fault, InputError
from ..files.document import did_you_mean, shown
from .columns import ALIASES, USED_HEADINGS

TABLES_DIRECTORY = Path(__file__).parent.parent.parent / "validation"
MAX_BYTES = 64 * 2**20
"""Of a table, unpacked."""
NEEDED = ("model", "accelerator", "gpus")
"""Columns without which a file is no table of measurements."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of a table, its cells by canonical name; blank cells are absent."""

    file: str
    line: int
    """1-based, the heading is line 1."""
    cells: dict[str, str]

    def get(self, name: str) -> str:
        """The cell of a canonical name; empty where the source does not say."""
        return self.cells.get(name, "")

    @property
    def source(self) -> str:
        """Whose measurement it is."""
        return self.get("source") or self.file


def shipped_tables() -> dict[str, Path]:
    """Tables that come with the program, by name."""
    return {path.name.split(".")[0]: path for path in sorted(TABLES_DIRECTORY.glob("*.csv*"))}


def read_table(path_or_name: str | os.PathLike[str]) -> list[Row]:
    """The rows of a CSV file (`.gz` is unpacked) or of a shipped table by its name.

    Raises:
        InputError: no such table, not readable as CSV, or without the columns that every table needs.
    """
    path = _table_path(os.fspath(path_or_name))
    reader = csv.DictReader(io.StringIO(_text(path)), strict=True)
    try:
        headings = list(reader.fieldnames or ())
        _check_headings(path, headings)
        return [
            Row(file=path.name, line=reader.line_num, cells=_cells(record))
            for record in reader
            if any(record.values())
        ]
    except csv.Error as error:
        fault = Fault(path="", found=str(error), expected="CSV", file=path.name, line=reader.line_num)
        raise InputError(fault) from error


def _table_path(name: str) -> Path:
    tables = shipped_tables()
    if name in tables and not Path(name).exists():
        return tables[name]
    if not Path(name).is_file():
        hint = did_you_mean(name, tables)
        raise InputError(
            Fault(path="table", found=shown(name), expected="a CSV file or a shipped table", hint=hint)
        )
    return Path(name)


def _text(path: Path) -> str:
    """The file's text, unpacked where it is compressed, and never more than `MAX_BYTES` of it."""
    try:
        with path.open("rb") as file:
            unpacked = gzip.GzipFile(fileobj=file) if path.suffix == ".gz" else file
            data = unpacked.read(MAX_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(Fault(path="", found=reason, expected="a readable table", file=path.name)) from error
    if len(data) > MAX_BYTES:
        raise InputError(Fault(path="", found="more bytes", expected=f"at most {MAX_BYTES}", file=path.name))
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(Fault(path="", found="not UTF-8", expected="UTF-8 text", file=path.name)) from error


def _check_headings(path: Path, headings: list[str]) -> None:
    missing = [name for name in NEEDED if not set(ALIASES[name]) & set(headings)]
    faults = [
        Fault(path=name, found="no such column", expected=" | ".join(ALIASES[name]), file=path.name, line=1)
        for name in missing
    ]
    twice = {heading for heading in headings if headings.count(heading) > 1 and heading in USED_HEADINGS}
    faults += [Fault(path=heading, found="twice", file=path.name, line=1) for heading in sorted(twice)]
    if faults:
        raise InputError(faults)


def _cells(record: dict[str, str | None]) -> dict[str, str]:
    cells = {}
    for name, headings in ALIASES.items():
        for heading in headings:
            text = (record.get(heading) or "").strip()
            if text:
                cells[name] = text
                break
    return cells
