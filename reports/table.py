"""Tables for the terminal: drawn by rich where someone looks on, plain columns where a program reads."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TextIO

from . import formats


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Cells as text, and which columns are numbers."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    text_columns: tuple[int, ...] = (0,)
    """Columns set to the left; the others hold numbers and are set to the right."""


def show(table: Table, file: TextIO | None = None) -> None:
    """Print ``table`` to ``file`` (standard output): boxed and coloured on a terminal, else plain."""
    out = sys.stdout if file is None else file
    if out.isatty():
        _show_rich(table, out)
    else:
        print(plain(table), file=out)


def show_all(tables: Iterable[Table], file: TextIO | None = None) -> None:
    """Print several tables, with an empty line between them."""
    for number, table in enumerate(tables):
        if number:
            print(file=sys.stdout if file is None else file)
        show(table, file)


def _show_rich(table: Table, file: TextIO) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table as RichTable
    from rich.text import Text

    drawn = RichTable(title=Text(formats.printable(table.title)), box=box.SIMPLE_HEAD, title_justify="left")
    for index, name in enumerate(table.columns):
        left = index in table.text_columns
        drawn.add_column(Text(name), justify="left" if left else "right", no_wrap=not left)
    for row in table.rows:
        drawn.add_row(*(Text(formats.printable(cell)) for cell in row))  # Text: names hold no markup
    Console(file=file).print(drawn)


def plain(table: Table) -> str:
    """``table`` in columns two blanks apart, without lines or colours."""
    cells = [table.columns, *(tuple(formats.printable(cell) for cell in row) for row in table.rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(table.columns))]
    lines = [table.title] if table.title else []
    for row in cells:
        padded = (
            cell.ljust(width) if i in table.text_columns else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        lines.append("  ".join(padded).rstrip())
    return "\n".join(lines)
