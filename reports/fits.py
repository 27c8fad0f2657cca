"""Fitted curves over the points they were fitted to, with what is left between them beneath.

A `Fit` is one curve of the cluster and the measurements of the same thing, where there are some; a figure
shows several on one pair of axes. The curve is read exactly as the simulator reads it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from ..sim.hardware.cluster import Cluster, Curve
from ..sim.hardware.curves import interpolate, interpolate_time
from .charts import COLOURS, LEGEND, LINES, MARGIN
from .measurements_file import Series
from .timeline import Figure, plot_text

SYMBOLS = ("circle", "square", "diamond", "triangle-up", "x", "star", "cross")
FEW_PLACES = 6
Point = tuple[float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """One curve with its measurements."""

    name: str
    curve: Curve
    read: Callable[[Curve, float], float]
    """How the simulator reads the curve between its points."""
    points: tuple[Point, ...] = ()
    """Medians of what was measured, x rising."""

    @property
    def residuals(self) -> tuple[Point, ...]:
        """(x, fitted over measured less one, percent) of every measured point."""
        return tuple((x, (self.read(self.curve, x) / y - 1) * 100) for x, y in self.points if y > 0)

    @property
    def median_pct(self) -> float | None:
        """Median size of the residuals; None where nothing was measured."""
        sizes = [abs(residual) for _, residual in self.residuals]
        return median(sizes) if sizes else None


def transport_fits(cluster: Cluster, series: Sequence[Series]) -> list[Fit]:
    """Seconds by message bytes, for every operation and number of ranks."""
    return [
        Fit(
            name=f"{t.operation}, {t.ranks} ranks",
            curve=t.times_s,
            read=interpolate_time,
            points=_points(series, t.operation, lambda p: p.get("bytes"), ranks=t.ranks),
        )
        for t in cluster.transports
        if t.times_s
    ]


def kernel_fits(cluster: Cluster, series: Sequence[Series]) -> list[Fit]:
    """Fraction of peak by FLOPs of one kernel."""
    accelerator = cluster.accelerator
    fits = []
    for precision, curve in accelerator.gemm_efficiency.items():
        peak = accelerator.peak_flops.get(precision, 0.0)
        times = _points(series, "gemm", _gemm_flops, precision=precision)
        points = tuple((flops, flops / seconds / peak) for flops, seconds in times) if peak else ()
        fits.append(Fit(name=f"GEMM {precision}", curve=curve, read=interpolate, points=points))
    for precision, curve in accelerator.attention_efficiency.items():
        fits.append(Fit(name=f"attention {precision}", curve=curve, read=interpolate))
    return [fit for fit in fits if fit.curve]


def memory_fits(cluster: Cluster, series: Sequence[Series]) -> list[Fit]:
    """Fraction of memory bandwidth by bytes that one kernel moves."""
    accelerator = cluster.accelerator
    if not accelerator.memory_efficiency:
        return []
    times = _points(series, "memory", lambda p: p.get("bytes"))
    points = tuple((size, size / seconds / accelerator.memory_bandwidth) for size, seconds in times)
    curve = accelerator.memory_efficiency
    return [Fit(name="read and write", curve=curve, read=interpolate, points=points)]


def layer_fits(cluster: Cluster, series: Sequence[Series]) -> list[Fit]:
    """Seconds of one layer by micro-batch, for every kind of layer and direction."""
    curves: dict[tuple[str, str], dict[float, float]] = {}
    for profile in cluster.accelerator.layer_profiles:
        for way, seconds in (("forward", profile.forward_s), ("backward", profile.backward_s)):
            curves.setdefault((profile.kind, way), {})[float(profile.micro_batch)] = seconds
    return [
        Fit(
            name=f"{kind} {way}",
            curve=tuple(sorted(points.items())),
            read=interpolate_time,
            points=_points(series, way, lambda p: p.get("micro_batch"), kind=kind),
        )
        for (kind, way), points in curves.items()
    ]


def _gemm_flops(parameters: dict[str, Any]) -> float | None:
    sizes = [parameters.get(name) for name in "mnk"]
    if not all(isinstance(size, int) for size in sizes):
        return None
    m, n, k = sizes
    return 2.0 * m * n * k  # type: ignore[operator]  just checked


def _points(
    series: Sequence[Series], what: str, x: Callable[[dict[str, Any]], object], **wanted: object
) -> tuple[Point, ...]:
    """(x, median seconds) of the series of ``what`` whose parameters are as ``wanted``."""
    found = []
    for one in series:
        place = x(one.parameters)
        same = all(one.parameters.get(name) == value for name, value in wanted.items())
        if one.what == what and same and isinstance(place, int | float) and place > 0:
            found.append((float(place), median(one.seconds)))
    return tuple(sorted(found))


def fit_figure(fits: Sequence[Fit], x: str, y: str, *, log_y: bool) -> Figure:
    """Curves as lines, measurements as marks, and beneath them the residuals where there are any.

    Where the x are few, as micro-batches are, each has its own tick.
    """
    data: list[Figure] = []
    measured = any(fit.points for fit in fits)
    for number, fit in enumerate(fits):
        data += _drawn(fit, number)
    layout: Figure = {
        "height": 460 if measured else 360,
        "margin": MARGIN,
        "legend": LEGEND,
        "xaxis": {"title": {"text": x}, **_log_axis()},
        "yaxis": {"title": {"text": y}, "automargin": True, **(_log_axis() if log_y else _zero_axis())},
    }
    places = sorted({place for fit in fits for place, _ in (*fit.curve, *fit.points)})
    if len(places) <= FEW_PLACES:
        ticks = {"tickvals": places, "ticktext": [f"{place:g}" for place in places]}
        layout["xaxis"] = {"title": {"text": x}, "type": "log", **ticks}
    if measured:
        layout["yaxis"]["domain"] = [0.36, 1]
        layout["yaxis2"] = {
            "domain": [0, 0.24],
            "title": {"text": "residual, %"},
            "automargin": True,
            "zeroline": True,
        }
        layout["xaxis"]["anchor"] = "y2"
    return {"data": data, "layout": layout}


def _log_axis() -> Figure:
    return {"type": "log", "exponentformat": "power", "dtick": 1}


def _zero_axis() -> Figure:
    return {"rangemode": "tozero"}


def _drawn(fit: Fit, number: int) -> list[Figure]:
    colour = COLOURS[number % len(COLOURS)]
    dash = LINES[number // len(COLOURS) % len(LINES)]
    marks = {"symbol": SYMBOLS[number % len(SYMBOLS)], "size": 7, "color": colour}
    name = plot_text(fit.name)
    curve = {
        "type": "scatter",
        "mode": "lines" if fit.points else "lines+markers",
        "name": f"{name}, fit" if fit.points else name,
        "legendgroup": name,
        "x": [point[0] for point in fit.curve],
        "y": [_short(point[1]) for point in fit.curve],
        "line": {"color": colour, "dash": dash, "width": 2},
        "marker": marks,
    }
    if not fit.points:
        return [curve]
    return [
        curve | {"showlegend": False},
        _marks(name, fit.points, marks, "y", in_legend=True),
        _marks(name, fit.residuals, marks, "y2", in_legend=False),
    ]


def _marks(name: str, points: Sequence[Point], marks: Figure, axis: str, *, in_legend: bool) -> Figure:
    return {
        "type": "scatter",
        "mode": "markers",
        "name": name,
        "legendgroup": name,
        "showlegend": in_legend,
        "x": [x for x, _ in points],
        "y": [_short(y) for _, y in points],
        "yaxis": axis,
        "marker": marks,
    }


def _short(value: float) -> float:
    return float(f"{value:.5g}")
