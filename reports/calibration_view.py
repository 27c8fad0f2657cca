"""What the cluster was calibrated with: fitted curves over the measured points, and their residuals."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..sim.cluster import Cluster, Curve
from . import formats
from .charts import COLOURS, LEGEND, LINES, MARGIN
from .result_file import Result, inside
from .timeline import Figure, plot_text

SYMBOLS = ("circle", "square", "diamond", "triangle-up", "x", "star", "cross")


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """The section of the report."""

    cluster: Cluster
    residuals: tuple[tuple[str, float], ...]
    figures: tuple[tuple[str, str, str], ...]
    """Id, title, and what to see in it."""
    transports: tuple[tuple[str, int, float, float, float], ...]
    """Operation, ranks, and of its largest message bytes, seconds, bytes per second."""
    fits: tuple[tuple[str, float, float, float, float], ...]
    """Curve of efficiency; FLOPs and fraction of peak of its first and last point."""
    profiles: tuple[tuple[str, int, float, float], ...]
    """Layer kind, micro-batch, forward seconds, backward seconds."""


def read(directory: Path, result: Result, figures: dict[str, Figure]) -> Calibration | None:
    """The calibration in ``directory``, None where no cluster file lies there; adds to ``figures``.

    Raises:
        InputError: the cluster file is not sound.
    """
    from ..sim.cluster_file import read_cluster

    path = inside(directory, result.cluster.file)
    if path is None:
        return None
    cluster = read_cluster(path)
    drawn = _figures(cluster)
    figures.update({name: figure for name, _, _, figure in drawn})
    return Calibration(
        cluster=cluster,
        residuals=tuple(cluster.residuals.items()),
        figures=tuple((name, title, text) for name, title, text, _ in drawn),
        transports=tuple(_transport_rows(cluster)),
        fits=tuple((name, *curve[0], *curve[-1]) for name, curve in _efficiencies(cluster) if curve),
        profiles=tuple(
            (p.kind, p.micro_batch, p.forward_s, p.backward_s) for p in cluster.accelerator.layer_profiles
        ),
    )


def _figures(cluster: Cluster) -> list[tuple[str, str, str, Figure]]:
    """Those there is something to draw in: id, title, caption, figure."""
    found: list[tuple[str, str, str, Figure]] = []
    efficiencies = _efficiencies(cluster)
    if efficiencies:
        figure = _curves(efficiencies, "FLOPs of one kernel", "fraction of peak", log_y=False)
        text = "What one kernel reaches of the accelerator's peak, by its size."
        found.append(("efficiency", "Kernel efficiency", text, figure))
    transports = [(f"{t.operation}, {t.ranks} ranks", t.times_s) for t in cluster.transports]
    if transports:
        figure = _curves(transports, "message bytes", "seconds", log_y=True)
        text = "Time of one communication until its last rank is done, by message size."
        found.append(("transports", "Communication", text, figure))
    if cluster.residuals:
        text = "How far each fit is from its own measurements: median of the relative errors."
        found.append(("residuals", "Residuals", text, _residuals(cluster.residuals.items())))
    return found


def _efficiencies(cluster: Cluster) -> list[tuple[str, Curve]]:
    accelerator = cluster.accelerator
    return [
        *((f"GEMM {name}", curve) for name, curve in accelerator.gemm_efficiency.items()),
        *((f"attention {name}", curve) for name, curve in accelerator.attention_efficiency.items()),
    ]


def _curves(curves: Sequence[tuple[str, Curve]], x: str, y: str, *, log_y: bool) -> Figure:
    """Points joined as the simulator joins them: straight over the logarithm of x."""
    data = [
        {
            "type": "scatter",
            "mode": "lines+markers",
            "name": plot_text(name),
            "x": [point[0] for point in curve],
            "y": [float(f"{point[1]:.5g}") for point in curve],
            "line": {
                "color": COLOURS[i % len(COLOURS)],
                "dash": LINES[i // len(COLOURS) % len(LINES)],
                "width": 2,
            },
            "marker": {"symbol": SYMBOLS[i % len(SYMBOLS)], "size": 7},
        }
        for i, (name, curve) in enumerate(curves)
    ]
    layout = {
        "height": 380,
        "margin": MARGIN,
        "legend": LEGEND,
        "xaxis": {"title": {"text": x}, "type": "log", "exponentformat": "power", "dtick": 1},
        "yaxis": {"title": {"text": y}, "type": "log" if log_y else "linear", "automargin": True}
        | ({"exponentformat": "power", "dtick": 1} if log_y else {"rangemode": "tozero"}),
    }
    return {"data": data, "layout": layout}


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


def _transport_rows(cluster: Cluster) -> Iterable[tuple[str, int, float, float, float]]:
    for transport in cluster.transports:
        if transport.times_s:
            size, seconds = transport.times_s[-1]
            yield transport.operation, transport.ranks, size, seconds, size / seconds if seconds else 0.0
