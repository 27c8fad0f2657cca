"""The report's other charts, in plotly's JSON: breakdown, memory, losses.

Every chart is shown with a table of the same numbers beneath it, so what a chart says is never only said
by colour. Names come from files and are escaped.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from . import formats
from .palette import BY_KEY, MEMORY_PARTS, PHASES, memory_parts
from .result_file import PlanEntry
from .timeline import Figure, plot_text

PREDICTED, MEASURED = "#0072B2", "#D55E00"
LINES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#999999")
MARGIN = {"l": 10, "r": 16, "t": 28, "b": 44}
LEGEND = {"orientation": "h", "y": 1.0, "yanchor": "bottom", "x": 0}
GIB, MIB = 2**30, 2**20
BARS_SHARE = 0.12
"""Bars that would fill less of the width than this are drawn without the capacity."""


def name_of(entry: PlanEntry) -> str:
    """A plan as charts and tables call it."""
    return f"#{entry.id} {entry.label}"


def breakdown_figure(rows: Sequence[tuple[str, Mapping[str, float]]]) -> Figure:
    """Stacked bars of seconds by phase key, one for each named row, that add up to its step time."""
    names = [plot_text(name) for name, _ in rows]
    unit, unit_name = formats.axis_unit(max(sum(parts.values()) for _, parts in rows))
    data = [
        {
            "type": "bar",
            "orientation": "h",
            "name": phase.label,
            "y": names,
            "x": [short(parts.get(phase.key, 0.0) / unit) for _, parts in rows],
            "marker": _filled(phase.colour, phase.pattern),
            "hovertemplate": "%{y}<br>" + phase.label + " %{x:.4g} " + unit_name + "<extra></extra>",
        }
        for phase in PHASES
        if any(parts.get(phase.key) for _, parts in rows)
    ]
    return {"data": data, "layout": _stacked_layout(len(rows), f"{unit_name} of one step, mean over workers")}


def memory_figure(entry: PlanEntry, capacity_bytes: float) -> Figure:
    """Bytes by rank and part, stacked, against the capacity, with measured peaks where there are some."""
    names = memory_names(entry)
    parts = [memory_parts(row) for row in entry.predicted.memory]
    measured = measured_peaks(entry)
    fullest = max([sum(part.values()) for part in parts] + list(measured.values()), default=0.0)
    unit, unit_name = (GIB, "GiB") if fullest >= GIB else (MIB, "MiB")
    data: list[Figure] = [
        {
            "type": "bar",
            "orientation": "h",
            "name": label,
            "y": names,
            "x": [round(part.get(key, 0.0) / unit, 4) for part in parts],
            "marker": _filled(colour, pattern),
            "hovertemplate": "%{y}<br>" + label + " %{x:.4g} " + unit_name + "<extra></extra>",
        }
        for key, (label, colour, _, pattern) in MEMORY_PARTS.items()
        if any(part.get(key) for part in parts)
    ]
    if measured:
        data.append(_measured_peaks(measured, names, unit, unit_name))
    layout = _stacked_layout(len(names), f"{unit_name} at the peak")
    if capacity_bytes and fullest < capacity_bytes * BARS_SHARE:
        layout["annotations"] = [_capacity_note(capacity_bytes)]
    elif capacity_bytes:
        data.append(_capacity(capacity_bytes, names, unit))
    return {"data": data, "layout": layout}


def memory_names(entry: PlanEntry) -> list[str]:
    """What each row of a plan's memory is of: its pipeline stages, then its servers."""
    stages = entry.strategy.get("pp", len(entry.predicted.memory))
    rows = range(len(entry.predicted.memory))
    return [f"stage {row}" if row < stages else f"server {row - stages}" for row in rows]


def measured_peaks(entry: PlanEntry) -> dict[int, float]:
    """Measured peak bytes by row of the plan's memory: the fullest rank of each stage or server."""
    if entry.measured is None:
        return {}
    degrees = [entry.strategy.get(name, 1) for name in ("dp", "tp", "cp", "pp")]
    if not all(isinstance(degree, int) and degree >= 1 for degree in degrees):
        return {}
    *within, pp = degrees
    of_stage = math.prod(within)
    peaks: dict[int, float] = {}
    for text, size in entry.measured.peak_memory_bytes.items():
        rank = int(text) if text.isascii() and text.isdigit() else -1
        row = rank // of_stage if rank < of_stage * pp else pp + rank - of_stage * pp
        if 0 <= row < len(entry.predicted.memory):
            peaks[row] = max(peaks.get(row, 0.0), size)
    return peaks


def _measured_peaks(measured: dict[int, float], names: list[str], unit: int, unit_name: str) -> Figure:
    return {
        "type": "scatter",
        "mode": "markers",
        "name": "measured peak",
        "x": [round(size / unit, 4) for size in measured.values()],
        "y": [names[row] for row in measured],
        "marker": {
            "symbol": "diamond",
            "size": 12,
            "color": "#ffffff",
            "line": {"width": 2.5, "color": "#111111"},
        },
        "hovertemplate": "%{y} measured %{x:.4g} " + unit_name + "<extra></extra>",
    }


def _capacity(capacity_bytes: float, names: list[str], unit: int) -> Figure:
    """A line the legend can name, across all bars."""
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "name": f"capacity {formats.size(capacity_bytes)}",
        "x": [round(capacity_bytes / unit, 4)] * len(names),
        "y": names,
        "line": {"color": MEASURED, "width": 2, "dash": "dash"},
        "marker": {"symbol": "line-ns-open", "size": 22, "color": MEASURED, "line": {"width": 2}},
        "hovertemplate": f"capacity {formats.size(capacity_bytes)}<extra></extra>",
    }


def _capacity_note(capacity_bytes: float) -> Figure:
    """Says where the capacity is when drawing it would leave the bars without width."""
    return {
        "text": f"capacity {formats.size(capacity_bytes)} lies far to the right →",
        "xref": "paper",
        "x": 1,
        "xanchor": "right",
        "yref": "paper",
        "y": 1,
        "yanchor": "bottom",
        "showarrow": False,
    }


def _filled(colour: str, pattern: str) -> Figure:
    return {
        "color": colour,
        "line": {"width": 0.5, "color": "rgba(0,0,0,0.4)"},
        "pattern": {
            "shape": pattern,
            "fillmode": "overlay",
            "size": 7,
            "solidity": 0.15,
            "fgcolor": "rgba(0,0,0,0.4)",
            "bgcolor": colour,
        },
    }


def _stacked_layout(rows: int, unit: str) -> Figure:
    return {
        "barmode": "stack",
        "height": 130 + 30 * rows,
        "bargap": 0.35,
        "margin": MARGIN,
        "legend": {**LEGEND, "traceorder": "normal"},
        "yaxis": {"autorange": "reversed", "automargin": True, "type": "category"},
        "xaxis": {"title": {"text": unit}, "rangemode": "tozero"},
    }


def losses_figure(plans: Sequence[PlanEntry]) -> Figure:
    """Loss against step of every plan that was run."""
    data = [
        {
            "type": "scatter",
            "mode": "lines+markers",
            "name": plot_text(name_of(entry)),
            "x": list(range(1, len(entry.measured.losses) + 1)),
            "y": [float(f"{loss:.6g}") for loss in entry.measured.losses],
            "line": {"color": COLOURS[i % len(COLOURS)], "dash": LINES[i % len(LINES)], "width": 2},
            "marker": {"size": 4},
        }
        for i, entry in enumerate(plans)
        if entry.measured and entry.measured.losses
    ]
    layout = {
        "height": 400,
        "margin": MARGIN,
        "hovermode": "x unified",
        "legend": LEGEND,
        "xaxis": {"title": {"text": "step"}, "rangemode": "tozero", "zeroline": False},
        "yaxis": {"title": {"text": "training loss"}, "automargin": True},
    }
    return {"data": data, "layout": layout}


def phase_label(key: str) -> str:
    """What a phase is called."""
    return BY_KEY[key].label if key in BY_KEY else key


def short(value: float) -> float:
    """Six digits: what a picture can show."""
    return float(f"{value:.6g}")
