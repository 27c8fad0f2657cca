"""The pipeline as plotly draws it: every rank a line, predicted above measured on one axis of time.

Figures are plain dictionaries in plotly's JSON, so making one imports nothing; colours of text and grid
come from the page, which knows whether it is light or dark. One bar trace holds all spans of a phase.
"""

from __future__ import annotations

from html import escape
from typing import Any

from ..sim.trace.trace import Span, Trace
from . import formats
from .lanes import MAX_SPANS, Picture, picture
from .palette import IDLE, PHASES, Phase, phase_of

Figure = dict[str, Any]

COMPUTE_LANE = (0.08, 0.62)
"""Offset and thickness of a rank's compute bars, in ranks."""
OTHER_LANE = (-0.34, 0.16)
"""The same for its communication, drawn as a thin line above."""
ROW_PIXELS = 34
PANEL_PIXELS = 60


def timeline(
    predicted: Trace | None, measured: Trace | None, max_spans: int = MAX_SPANS
) -> tuple[Figure, list[str]]:
    """Predicted above measured, and what is left out, a line for each side. Needs one of the two."""
    sides = _pictures(predicted, measured, max_spans)
    length = max(shown.length_s for _, shown in sides)
    unit, unit_name = formats.axis_unit(length)
    data: list[Figure] = []
    layout: Figure = {
        "barmode": "overlay",
        "hovermode": "closest",
        "dragmode": "zoom",
        "margin": {"l": 70, "r": 16, "t": 28, "b": 44},
        "legend": {"orientation": "h", "y": 1.0, "yanchor": "bottom", "x": 0},
        "xaxis": {"title": {"text": f"{unit_name} since the step began"}, "zeroline": False},
        "shapes": [],
        "annotations": [],
    }
    rows = [max(len(shown.ranks), 1) for _, shown in sides]
    layout["height"] = 110 + sum(rows) * ROW_PIXELS + len(sides) * PANEL_PIXELS
    tops = _domains(rows)
    legend: set[str] = set()
    for index, ((trace, shown), domain) in enumerate(zip(sides, tops, strict=True)):
        axis = "y" if index == 0 else f"y{index + 1}"
        data += _bars(shown, axis, unit, legend)
        layout[axis.replace("y", "yaxis")] = _rank_axis(shown, domain)
        if trace.step_time_s <= length:
            layout["shapes"].append(_step_line(trace.step_time_s / unit, axis))
        layout["annotations"].append(_panel_title(trace, domain))
    layout["xaxis"]["range"] = [0, length / unit * 1.02]
    layout["xaxis"]["anchor"] = "y" if len(sides) == 1 else f"y{len(sides)}"
    notes = [f"{trace.source}: {'; '.join(shown.notes)}" for trace, shown in sides if shown.notes]
    return {"data": data, "layout": layout}, notes


def _pictures(predicted: Trace | None, measured: Trace | None, max_spans: int) -> list[tuple[Trace, Picture]]:
    """Both sides with the same ranks, as far as both have them."""
    traces = [trace for trace in (predicted, measured) if trace is not None]
    each = max_spans // max(len(traces), 1)
    first = picture(traces[0], each)
    sides = [(traces[0], first)]
    for trace in traces[1:]:
        common = [rank for rank in first.ranks if rank in set(trace.ranks)]
        length = first.length_s if first.length_s < traces[0].step_time_s else None
        sides.append((trace, picture(trace, each, common or None, length)))
    return sides


def _domains(rows: list[int]) -> list[list[float]]:
    """Shares of the height, from the top down, with room for a title above each."""
    if len(rows) == 1:
        return [[0.0, 0.9]]
    gap = 0.1
    upper = (1 - 2 * gap) * rows[0] / sum(rows)
    return [[1 - gap / 2 - upper, 1 - gap / 2], [0.0, 1 - gap / 2 - upper - gap]]


def _bars(shown: Picture, axis: str, unit: float, legend: set[str]) -> list[Figure]:
    """One bar trace for each phase; a phase is named once in the legend, whichever panels it is in."""
    places = {rank: place for place, rank in enumerate(shown.ranks)}
    bars = []
    for phase in PHASES:
        spans = [span for span in shown.spans if phase_of(span.kind, span.stream) is phase]
        if spans and phase.key != IDLE:
            bars.append(
                _phase_bars(phase, spans, places, axis, unit) | {"showlegend": phase.key not in legend}
            )
            legend.add(phase.key)
    return bars


def _phase_bars(phase: Phase, spans: list[Span], places: dict[int, int], axis: str, unit: float) -> Figure:
    lanes = [COMPUTE_LANE if span.stream == "compute" else OTHER_LANE for span in spans]
    return {
        "type": "bar",
        "orientation": "h",
        "name": phase.label,
        "legendgroup": phase.key,
        "yaxis": axis,
        "base": [_short(span.start / unit) for span in spans],
        "x": [_short(span.duration / unit) for span in spans],
        "y": [round(places[s.rank] + offset, 2) for s, (offset, _) in zip(spans, lanes, strict=True)],
        "width": [thickness for _, thickness in lanes],
        "customdata": [[plot_text(s.action), s.rank, plot_text(s.stream), _amount(s)] for s in spans],
        "hovertemplate": "<b>%{customdata[0]}</b> rank %{customdata[1]}, %{customdata[2]}"
        "<br>%{customdata[3]}<extra></extra>",
        "marker": {
            "color": phase.colour,
            "line": {"width": 0.4, "color": "rgba(0,0,0,0.35)"},
            "pattern": {
                "shape": phase.pattern,
                "fillmode": "overlay",
                "size": 6,
                "solidity": 0.15,
                "fgcolor": "rgba(0,0,0,0.4)",
                "bgcolor": phase.colour,
            },
        },
    }


def plot_text(text: object) -> str:
    """``text`` so that plotly shows it as it is: it takes a subset of HTML for markup."""
    return escape(formats.printable(text), quote=False)


def _short(value: float) -> float:
    return float(f"{value:.6g}")


def _amount(span: Span) -> str:
    text = f"{formats.seconds(span.duration)} from {formats.seconds(span.start)}"
    if span.bytes:
        text += f", {formats.size(span.bytes)}"
    if span.flops:
        text += f", {formats.flops(span.flops)}"
    return text


def _rank_axis(shown: Picture, domain: list[float]) -> Figure:
    places = list(range(len(shown.ranks)))
    return {
        "domain": domain,
        "autorange": False,
        "range": [len(places) - 0.45, -0.55],
        "tickvals": places,
        "ticktext": [f"rank {rank}" for rank in shown.ranks],
        "showgrid": False,
        "zeroline": False,
        "fixedrange": True,
    }


def _step_line(at: float, axis: str) -> Figure:
    """Where the median step ends."""
    line = {"width": 1.5, "dash": "dash", "color": "#D55E00"}
    return {
        "type": "line",
        "x0": _short(at),
        "x1": _short(at),
        "xref": "x",
        "y0": 0,
        "y1": 1,
        "yref": f"{axis} domain",
        "line": line,
    }


def _panel_title(trace: Trace, domain: list[float]) -> Figure:
    return {
        "text": f"<b>{trace.source}</b> · step time {formats.seconds(trace.step_time_s)}",
        "xref": "paper",
        "x": 0,
        "xanchor": "left",
        "yref": "paper",
        "y": domain[1],
        "yanchor": "bottom",
        "showarrow": False,
    }
