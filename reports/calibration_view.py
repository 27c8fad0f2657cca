"""The report's section on calibration: what the predictions know of the machine, and how well."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..sim.hardware.cluster import Cluster
from ..sim.hardware.cluster_file import read_cluster
from . import formats
from .charts import COLOURS, MARGIN
from .fits import Fit, fit_figure, kernel_fits, layer_fits, memory_fits, transport_fits
from .measurements_file import Series, read_measurements
from .result_file import Result, inside
from .timeline import Figure, plot_text


@dataclass(frozen=True, slots=True, kw_only=True)
class FitTable:
    """A figure of fits and the same as a table."""

    id: str
    title: str
    text: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """The section."""

    cluster: Cluster
    summary: str
    fits: tuple[FitTable, ...]
    residuals: tuple[tuple[str, float], ...]
    """By fit, as the cluster file states them."""


def read(directory: Path, result: Result, figures: dict[str, Figure]) -> Calibration | None:
    """The calibration in ``directory``, None where no cluster file lies there; adds to ``figures``.

    Raises:
        InputError: the cluster file or the measurements are not sound.
    """
    path = inside(directory, result.cluster.file)
    if path is None:
        return None
    cluster = read_cluster(path)
    raw = inside(directory, result.measurements)
    measurements = read_measurements(raw) if raw else None
    series = measurements.series if measurements else []
    tables = [table for table in _tables(cluster, series, figures) if table]
    if cluster.residuals:
        figures["residuals"] = _residuals(cluster.residuals.items())
    return Calibration(
        cluster=cluster,
        summary=_summary(cluster, len(series), sum(len(one.seconds) for one in series)),
        fits=tuple(tables),
        residuals=tuple(cluster.residuals.items()),
    )


def _summary(cluster: Cluster, series: int, samples: int) -> str:
    parts = [cluster.description.rstrip(". ") + "." if cluster.description else ""]
    if cluster.date:
        parts.append(f"Dated {cluster.date}.")
    if series:
        parts.append(
            f"{samples:,} samples of {series:,} things were taken; marks are their medians, lines what the "
            "simulator makes of them, and beneath stands fitted over measured, less one."
        )
    return " ".join(part for part in parts if part)


def _tables(
    cluster: Cluster, series: Sequence[Series], figures: dict[str, Figure]
) -> Iterable[FitTable | None]:
    rate = ("fraction of peak", formats.percent)
    time = ("seconds", formats.seconds)
    kernels = "What one kernel reaches of the accelerator's peak, by its size."
    yield _table(
        "efficiency",
        "Kernels",
        kernels,
        kernel_fits(cluster, series),
        ("FLOPs", formats.flops),
        rate,
        figures,
    )
    moved = "What one kernel reaches of the memory bandwidth, by the bytes it moves."
    bandwidth = ("fraction of bandwidth", formats.percent)
    yield _table(
        "bandwidth",
        "Memory",
        moved,
        memory_fits(cluster, series),
        ("bytes", formats.size),
        bandwidth,
        figures,
    )
    layers = "One layer inside a whole training step, by micro-batch."
    yield _table(
        "layers", "Layers", layers, layer_fits(cluster, series), ("micro-batch", formats.count), time, figures
    )
    messages = "One communication until its last rank is done, by message size."
    yield _table(
        "transports",
        "Communication",
        messages,
        transport_fits(cluster, series),
        ("message bytes", formats.size),
        time,
        figures,
    )


def _table(
    name: str,
    title: str,
    text: str,
    fits: Sequence[Fit],
    x: tuple[str, formats.Format],
    y: tuple[str, formats.Format],
    figures: dict[str, Figure],
) -> FitTable | None:
    """Draw ``fits`` into ``figures`` and lay them out as a table: both ends of each and its residual."""
    if not fits:
        return None
    figures[name] = fit_figure(fits, x[0], y[0], log_y=y[0] == "seconds")
    rows = []
    for fit in fits:
        ends = [shown for a, b in (fit.curve[0], fit.curve[-1]) for shown in (x[1](a), y[1](b))]
        residual = fit.median_pct
        rows.append(
            (fit.name, *ends, formats.percent(residual / 100) if residual is not None else formats.DASH)
        )
    columns = ("curve", f"from {x[0]}", y[0], f"to {x[0]}", y[0], "median residual")
    return FitTable(id=name, title=title, text=text, columns=columns, rows=tuple(rows))


def _residuals(residuals: Iterable[tuple[str, float]]) -> Figure:
    rows = list(residuals)
    return {
        "data": [
            {
                "type": "bar",
                "orientation": "h",
                "y": [plot_text(name) for name, _ in rows],
                "x": [round(value * 100, 3) for _, value in rows],
                "text": [formats.percent(value) for _, value in rows],
                "textposition": "outside",
                "cliponaxis": False,
                "marker": {"color": COLOURS[0]},
                "hovertemplate": "%{y}: %{x:.2f} %<extra></extra>",
            }
        ],
        "layout": {
            "height": 90 + 28 * len(rows),
            "margin": {**MARGIN, "r": 60},
            "yaxis": {"autorange": "reversed", "automargin": True, "type": "category"},
            "xaxis": {"title": {"text": "median relative error, %"}, "rangemode": "tozero"},
        },
    }
