"""Pipeline schedules side by side: a table, and one of them drawn in text."""

from __future__ import annotations

from collections.abc import Sequence

from ..sim.api.schedules import Schedules
from .formats import seconds
from .passes import drawing
from .table import Table

DRAWN_COLUMNS = 150
"""A drawing in text is given up where it would be wider."""
DRAWN_RANKS = 16


def schedule_table(found: Schedules) -> Table:
    """Step time, bubble and micro-batches in flight of each schedule."""
    rows = []
    for row in found.rows:
        kept = row["in_flight"]
        step = (seconds(row["step_time_s"]), f"{row['bubble_rate']:.1%}")
        rows.append((row["name"], str(row["virtual_stages"]), *step, f"{max(kept):g}", _by_rank(kept)))
    columns = ("schedule", "stages a rank", "step", "bubble", "in flight", "by rank")
    return Table(title="", columns=columns, rows=tuple(rows), text_columns=(0, 5))


def _by_rank(kept: Sequence[float]) -> str:
    """All of few ranks; of many the first and the last."""
    if len(set(kept)) == 1:
        return "alike"
    shown = [f"{each:g}" for each in kept]
    return " ".join(shown if len(shown) <= DRAWN_RANKS else [*shown[:4], "…", *shown[-2:]])


def schedule_drawing(found: Schedules) -> list[str]:
    """A line of text for each rank, where there is one schedule and it is small enough."""
    if len(found) != 1:
        return []
    (name,) = found
    return drawing(found.trace(name), DRAWN_COLUMNS, DRAWN_RANKS)
