"""Tables for the terminal: drawn by rich where someone looks on, plain columns where a program reads."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TextIO

from . import formats
from .compare import Comparison, Row
from .palette import BY_KEY, MEMORY_PARTS

WORST_ACTIONS = 5


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


def comparison_tables(comparison: Comparison) -> list[Table]:
    """By phase with the total, by rank, and the actions that are furthest off."""

    def rows(of: Sequence[Row], names: Mapping[str, str]) -> tuple[tuple[str, ...], ...]:
        return tuple(
            (
                names.get(row.name, row.name),
                formats.seconds(row.predicted),
                formats.seconds(row.measured),
                formats.error(row.error_pct),
            )
            for row in of
        )

    numbers = ("predicted", "measured", "error")
    phases = {key: phase.label for key, phase in BY_KEY.items()}
    worst = sorted(comparison.actions, key=lambda row: -abs(row.predicted - row.measured))[:WORST_ACTIONS]
    ranks = {row.name: f"rank {row.name}" for row in comparison.ranks}
    return [
        Table(
            title="",
            columns=("phase", *numbers),
            rows=rows(comparison.phases, phases) + rows([comparison.total], {"step_time": "step time"}),
        ),
        Table(title="", columns=("compute of", *numbers), rows=rows(comparison.ranks, ranks)),
        Table(title="", columns=("furthest off", *numbers), rows=rows(worst, {})),
    ]


def plans_table(plans: Sequence[Mapping[str, Any]]) -> Table:
    """Ranked plans, as `plan --json` lists them: best first, and why each other one is not."""
    measured = any(plan.get("measured") for plan in plans)
    columns = ["#", "plan", "step time", "p5–p95"]
    columns += ["measured", "error"] if measured else []
    columns += ["MFU", "bubble", "peak memory", "fits", "why not #1"]
    rows = []
    for number, plan in enumerate(plans, 1):
        predicted = plan["predicted"]
        times = predicted["step_time_s"]
        row = [str(number), str(plan["label"]), formats.seconds(times["p50"])]
        row.append(f"{formats.seconds(times['p5'])} – {formats.seconds(times['p95'])}")
        if measured:
            run = plan.get("measured")
            row.append(formats.seconds(run["step_time_s"]["p50"] if run else None))
            row.append(formats.error(plan.get("error_pct")))
        row.append(formats.percent(predicted.get("mfu")))
        row.append(formats.percent(predicted.get("bubble_fraction")))
        row.append(formats.size(max(predicted["peak_memory_bytes"], default=None)))
        row += ["yes" if predicted["fits"] else "no", str(plan.get("why_not") or formats.DASH)]
        rows.append(tuple(row))
    return Table(
        title="",
        columns=tuple(columns),
        rows=tuple(rows),
        text_columns=(1, len(columns) - 2, len(columns) - 1),
    )


def memory_table(memory: Sequence[Mapping[str, Any]], capacity_bytes: float) -> Table:
    """What each rank keeps in memory, its peak, and the share of the capacity."""
    rows = []
    for estimate in memory:
        total = float(estimate["total_bytes"])
        row = [f"rank {estimate['rank']}", *(formats.size(estimate[part]) for part in MEMORY_PARTS)]
        row += [formats.size(total), formats.percent(total / capacity_bytes if capacity_bytes else None, 0)]
        rows.append((*row, "yes" if total <= capacity_bytes else "no"))
    labels = [label for label, *_ in MEMORY_PARTS.values()]
    return Table(
        title="",
        columns=("rank", *labels, "peak", f"of {formats.size(capacity_bytes)}", "fits"),
        rows=tuple(rows),
        text_columns=(0, len(labels) + 3),
    )
