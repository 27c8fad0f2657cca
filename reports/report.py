"""One self-contained HTML file that tells what was planned, what was measured, and how far apart they are.

It opens from a disk without a network: plotly is inlined once, and a content security policy forbids the
rest. Every name in it comes from files and is escaped; every figure has the same numbers as a table below.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..sim.errors import InputError
from ..sim.files.writer import write_text_atomic
from ..sim.trace.trace import Trace
from . import calibration_view, page, views
from .accuracy_charts import accuracy_figure, peaks_figure
from .breakdown import exposed_seconds
from .charts import (
    breakdown_figure,
    losses_figure,
    measured_peaks,
    memory_figure,
    memory_names,
    name_of,
    phase_label,
)
from .compare import Comparison, compare, phase_seconds
from .palette import MEMORY_PARTS, PHASES, memory_parts
from .result_file import PlanEntry, Result, inside, read_result, read_traces
from .timeline import Figure, timeline

MAX_REPORT_BYTES = 10_000_000
MAX_PANELS = 24
"""Plans whose timeline is drawn; the others stay in the ranked table."""
SPAN_BUDGET = 24_000
"""Bars of all timelines together; each costs about 100 bytes of the page."""
TRACE_BUDGET_BYTES = 5_000_000
"""Trace files that one report reads, as packed: about 300,000 spans, a few seconds."""
BREAKDOWN_PLANS = 10
"""Bars of the breakdown: plans that were run, else the best."""


def write_report(directory: Path, output_path: Path) -> None:
    """Write the report of ``directory``, as `traincast.sim.search.result` lays it out, to ``output_path``.

    >>> import traincast as tc
    >>> from pathlib import Path
    >>> found = tc.plan("gpt2", "dgx-a100", global_batch=64, seq_len=1024, top=1, samples=2, output="results")
    >>> tc.write_report(Path("results"), Path("page.html"))

    Raises:
        InputError: a file of the directory cannot be used.
        UsageError: the report cannot be written.
    """
    result = read_result(directory)
    text = render(context(directory, result, SPAN_BUDGET))
    if len(text.encode()) > MAX_REPORT_BYTES:
        text = render(context(directory, result, SPAN_BUDGET // 8))
    if len(text.encode()) > MAX_REPORT_BYTES:
        raise InputError(f"{directory}: the report would exceed {MAX_REPORT_BYTES / 1e6:.0f} MB")
    write_text_atomic(output_path, text)


def render(values: dict[str, Any]) -> str:
    """The page."""
    return page.render("report.html.j2", values)


def context(directory: Path, result: Result, span_budget: int) -> dict[str, Any]:
    """Everything the template shows."""
    figures: dict[str, Figure] = {"accuracy": accuracy_figure(result.plans)}
    shown = result.plans[:MAX_PANELS]
    ran = [entry for entry in shown if entry.measured]
    read = _affordable(directory, [*ran, *(entry for entry in shown if not entry.measured)])
    broken_down = (ran or shown)[:BREAKDOWN_PLANS]
    panels, breakdown = [], []
    for entry in shown:
        predicted, measured = read_traces(directory, entry) if entry.id in read else (None, None)
        panel = _panel(entry, predicted, measured, result, figures, span_budget // len(shown))
        panels.append(panel | {"too_large": entry.id not in read})
        if entry in broken_down:
            breakdown += [
                (f"{name_of(entry)} · {trace.source}", exposed_seconds(trace))
                for trace in (predicted, measured)
                if trace is not None and trace.spans
            ]
    if breakdown:
        figures["breakdown"] = breakdown_figure(breakdown)
    weighed = [entry for entry in result.plans if entry.memory_error_pct is not None]
    if weighed:
        figures["peaks"] = peaks_figure(weighed)
    trained = [entry for entry in result.plans if entry.measured and entry.measured.losses]
    if trained:
        figures["losses"] = losses_figure(trained)
    calibration = calibration_view.read(directory, result, figures)
    return {
        "result": result,
        "tiles": views.tiles(result),
        "certainty": views.certainty(result),
        "facts": views.facts(result),
        "commands": views.commands(result),
        "plan_groups": views.plan_groups(result),
        "accuracy_text": views.accuracy_text(result),
        "peaks_text": views.peaks_text(result) if weighed else "",
        "ran": bool(ran),
        "panels": panels,
        "first_panel": next((panel["id"] for panel in panels if panel["measured"]), panels[0]["id"]),
        "breakdown": _breakdown_table(breakdown),
        "losses": views.loss_rows(trained),
        "calibration": calibration,
        "provenance": views.provenance(calibration.cluster if calibration else None, result),
        "counts": views.count_rows(result),
        "glossary": views.GLOSSARY,
        "figures": figures,
    }


def _affordable(directory: Path, entries: list[PlanEntry]) -> set[int]:
    """Ids of the plans whose traces are read: the first, and then as many as the budget allows."""
    spent, chosen = 0, set()
    for entry in entries:
        files = [inside(directory, name) for name in (entry.predicted_trace, entry.measured_trace)]
        spent += sum(file.stat().st_size for file in files if file)
        if spent <= TRACE_BUDGET_BYTES or not chosen:
            chosen.add(entry.id)
    return chosen


def _panel(
    entry: PlanEntry,
    predicted: Trace | None,
    measured: Trace | None,
    result: Result,
    figures: dict[str, Figure],
    max_spans: int,
) -> dict[str, Any]:
    """What the selector shows of one plan; its figures go into ``figures``."""
    drawn = [trace if trace is not None and trace.spans else None for trace in (predicted, measured)]
    spans = memory = None
    notes: list[str] = []
    if any(drawn):
        spans = f"timeline-{entry.id}"
        figures[spans], notes = timeline(drawn[0], drawn[1], max_spans)
    if entry.predicted.memory:
        memory = f"memory-{entry.id}"
        figures[memory] = memory_figure(entry, capacity_bytes(entry, result))
    comparison = compare(drawn[0], drawn[1]) if drawn[0] and drawn[1] else None
    return {
        "id": entry.id,
        "name": name_of(entry),
        "measured": entry.measured is not None,
        "timeline": spans,
        "notes": notes,
        "phases": _phase_rows(comparison),
        "phases_alone": _phases_alone(drawn) if comparison is None else [],
        "ranks": comparison.ranks if comparison else (),
        "memory": memory,
        "memory_table": _memory_table(entry, capacity_bytes(entry, result)),
        "staleness": views.staleness(entry),
    }


def capacity_bytes(entry: PlanEntry, result: Result) -> float:
    """What one rank may fill: as its estimate says, else the cluster's accelerator."""
    stated = [row.get("capacity_bytes") for row in entry.predicted.memory]
    numbers = [float(value) for value in stated if isinstance(value, int | float)]
    return min(numbers, default=result.cluster.memory_bytes)


def _phase_rows(comparison: Comparison | None) -> list[tuple[str, float, float, float | None]]:
    if comparison is None:
        return []
    rows = [(phase_label(row.name), row.predicted, row.measured, row.error_pct) for row in comparison.phases]
    total = comparison.total
    return [*rows, ("step time", total.predicted, total.measured, total.error_pct)]


def _phases_alone(traces: list[Trace | None]) -> list[tuple[str, float]]:
    """Seconds by phase of the one trace there is, with its step time."""
    trace = next((trace for trace in traces if trace is not None), None)
    if trace is None:
        return []
    rows = [(phase_label(key), value) for key, value in phase_seconds(trace).items()]
    return [*rows, ("step time", trace.step_time_s)]


def _memory_table(entry: PlanEntry, capacity: float) -> dict[str, Any]:
    parts = [memory_parts(row) for row in entry.predicted.memory]
    columns = [key for key in MEMORY_PARTS if any(part.get(key) for part in parts)]
    peaks = measured_peaks(entry)
    rows = [
        {
            "name": name,
            "parts": [part.get(key, 0.0) for key in columns],
            "total": sum(part.values()),
            "share": sum(part.values()) / capacity if capacity else None,
            "measured": peaks.get(index),
        }
        for index, (name, part) in enumerate(zip(memory_names(entry), parts, strict=True))
    ]
    labels = [MEMORY_PARTS[key][0] for key in columns]
    return {"columns": labels, "rows": rows, "capacity": capacity, "measured": bool(peaks)}


def _breakdown_table(rows: list[tuple[str, dict[str, float]]]) -> dict[str, Any]:
    used = [phase for phase in PHASES if any(parts.get(phase.key) for _, parts in rows)]
    return {
        "columns": [phase.label for phase in used],
        "rows": [
            {
                "name": name,
                "parts": [parts.get(phase.key, 0.0) for phase in used],
                "total": sum(parts.values()),
            }
            for name, parts in rows
        ],
    }
