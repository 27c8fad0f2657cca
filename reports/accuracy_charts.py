"""Predicted next to measured, in plotly's JSON: step times with p5 to p95, peak memory, signed errors.

Names come from files and are escaped; the table of ranked plans has the same numbers.
"""

from __future__ import annotations

from collections.abc import Sequence

from . import formats
from .charts import COLOURS, GIB, LEGEND, MARGIN, MEASURED, MIB, PREDICTED, name_of, short
from .result_file import PlanEntry, Quantiles
from .timeline import Figure, plot_text

BAND_PCT = 15.0
"""The band drawn around a right prediction."""


def accuracy_figure(plans: Sequence[PlanEntry]) -> Figure:
    """Step times with their p5 to p95, and next to them the signed error with the ±15 % band."""
    names = _names(plans)
    expected = [entry.predicted.step_time_s for entry in plans]
    unit, unit_name = formats.axis_unit(max(times.p50 for times in expected))
    data = [_intervals("predicted, p5–p95", names, expected, unit, PREDICTED, "circle")]
    layout = _layout(len(plans), f"step time, {unit_name}")
    runs = [entry for entry in plans if entry.measured and entry.error_pct is not None]
    if runs:
        times = [entry.measured.step_time_s for entry in runs if entry.measured]
        data.append(_intervals("measured, p5–p95", _names(runs), times, unit, MEASURED, "diamond-open"))
        _add_errors(data, layout, _names(runs), [entry.error_pct or 0.0 for entry in runs])
    return {"data": data, "layout": layout}


def peaks_figure(plans: Sequence[PlanEntry]) -> Figure:
    """Peak memory of the fullest rank of each of ``plans``, which were run, next to it the signed error."""
    names = _names(plans)
    predicted = [entry.predicted.peak_bytes or 0.0 for entry in plans]
    measured = [(entry.measured.peak_bytes or 0.0) if entry.measured else 0.0 for entry in plans]
    unit, unit_name = (GIB, "GiB") if max(*predicted, *measured) >= GIB else (MIB, "MiB")
    data = [
        _points("predicted", names, predicted, unit, PREDICTED, "circle"),
        _points("measured", names, measured, unit, MEASURED, "diamond-open"),
    ]
    layout = _layout(len(plans), f"peak memory of the fullest rank, {unit_name}")
    _add_errors(data, layout, names, [entry.memory_error_pct or 0.0 for entry in plans])
    return {"data": data, "layout": layout}


def _names(plans: Sequence[PlanEntry]) -> list[str]:
    return [plot_text(name_of(entry)) for entry in plans]


def _layout(rows: int, quantity: str) -> Figure:
    return {
        "height": 120 + 34 * rows,
        "margin": MARGIN,
        "legend": LEGEND,
        "yaxis": {"autorange": "reversed", "automargin": True, "type": "category"},
        "xaxis": {"title": {"text": quantity}, "rangemode": "tozero", "zeroline": False},
    }


def _add_errors(data: list[Figure], layout: Figure, plans: list[str], errors: Sequence[float]) -> None:
    """A second axis with bars of ``errors``, percent, and the band."""
    rounded = [round(error, 2) for error in errors]
    reach = max(BAND_PCT * 1.4, *(abs(error) * 1.25 for error in rounded))
    data.append(_error_bars(plans, rounded))
    layout["xaxis"]["domain"] = [0, 0.62]
    layout["xaxis2"] = {
        "domain": [0.67, 1],
        "range": [-reach, reach],
        "title": {"text": "error of the prediction, %"},
        "zeroline": True,
    }
    layout["shapes"] = [_band()]


def _points(
    name: str, plans: list[str], sizes: Sequence[float], unit: float, colour: str, symbol: str
) -> Figure:
    return {
        "type": "scatter",
        "mode": "markers",
        "name": name,
        "y": plans,
        "x": [short(size / unit) for size in sizes],
        "marker": {"color": colour, "symbol": symbol, "size": 10, "line": {"width": 2, "color": colour}},
        "customdata": [formats.size(size) for size in sizes],
        "hovertemplate": "%{y}: %{customdata}<extra>" + name + "</extra>",
    }


def _intervals(
    name: str, plans: list[str], times: Sequence[Quantiles], unit: float, colour: str, symbol: str
) -> Figure:
    return {
        **_points(name, plans, [t.p50 for t in times], unit, colour, symbol),
        "customdata": [formats.seconds(t.p50) for t in times],
        "error_x": {
            "type": "data",
            "symmetric": False,
            "array": [short(max(t.p95 - t.p50, 0) / unit) for t in times],
            "arrayminus": [short(max(t.p50 - t.p5, 0) / unit) for t in times],
            "thickness": 1.5,
            "color": colour,
        },
    }


def _error_bars(plans: list[str], errors: list[float]) -> Figure:
    return {
        "type": "bar",
        "orientation": "h",
        "xaxis": "x2",
        "y": plans,
        "x": errors,
        "width": 0.5,
        "text": [formats.error(error) for error in errors],
        "textposition": "outside",
        "cliponaxis": False,
        "showlegend": False,
        "marker": {"color": COLOURS[4], "line": {"width": 0.5, "color": "rgba(0,0,0,0.4)"}},
        "hovertemplate": "%{y}: %{x:+.1f} %<extra>error</extra>",
    }


def _band() -> Figure:
    return {
        "type": "rect",
        "layer": "below",
        "xref": "x2",
        "x0": -BAND_PCT,
        "x1": BAND_PCT,
        "yref": "paper",
        "y0": 0,
        "y1": 1,
        "fillcolor": "rgba(0,158,115,0.14)",
        "line": {"width": 0},
    }
