"""One self-contained HTML page that tells how far off the predictions of published runs are.

Errors by source, predicted against measured, the errors of each source as a histogram, the worst rows, why
rows are left out, and where everything was read. Names come from files and are escaped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..sim.files.writer import write_text_atomic
from . import formats
from .charts import COLOURS, MARGIN
from .page import render
from .timeline import Figure, plot_text

GOOD_PCT, FAIR_PCT = 7.0, 15.0
"""Mean absolute errors up to which a source is shown as good, as fair."""
BIN_PCT, REACH_PCT = 5.0, 60.0
"""Width of a histogram's bars, and the errors that its outermost ones hold with all beyond."""
WORST_ROWS = 20
SYMBOLS = ("circle", "square", "triangle-up", "diamond", "triangle-down", "cross", "x")
BAND = 1.2
"""The dotted lines of the scatter: this factor off."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One judged row that has a step time."""

    place: str
    """File and line."""
    model: str
    accelerator: str
    accelerators: int
    strategy: str
    measured_s: float
    predicted_s: float
    low_s: float
    """5th percentile of the drawn steps."""
    high_s: float
    """95th percentile."""

    @property
    def error_pct(self) -> float:
        """Signed, of the measured."""
        return 100 * (self.predicted_s / self.measured_s - 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """What one source published, and how it was predicted."""

    file: str
    title: str
    rows: int
    figures: Mapping[str, float | None]
    """As `validate --json` names them; None where one does not apply."""
    left_out: Mapping[str, int]
    """Rows by the reason why they are not used."""
    runs: Sequence[Run]
    citations: Sequence[str]
    """Where its rows and their configurations were read."""
    used: int = 0
    """Rows with a prediction; those that ran out of memory among them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Unseen:
    """Of one source: its mean absolute error by constants fitted with it, and without it."""

    title: str
    seen_pct: float | None
    unseen_pct: float | None
    growth_pct: float | None


def write_validation_page(sources: Sequence[Source], path: Path, unseen: Sequence[Unseen] = ()) -> None:
    """Write the page of ``sources``, with the table of ``unseen`` where there is one.

    Raises:
        UsageError: the file cannot be written.
    """
    write_text_atomic(path, render("validation.html.j2", context(sources, unseen)))


def context(sources: Sequence[Source], unseen: Sequence[Unseen] = ()) -> dict[str, Any]:
    """Everything the template shows."""
    measured = [source for source in sources if source.runs]
    figures: dict[str, Figure] = {"scatter": scatter_figure(measured)}
    histograms = []
    for place, source in enumerate(measured):
        figures[f"errors-{place}"] = histogram_figure([run.error_pct for run in source.runs])
        histograms.append({"id": f"errors-{place}", "source": source, "bars": _bars(source)})
    runs = [(run, source) for source in measured for run in source.runs]
    worst = sorted(runs, key=lambda pair: -abs(pair[0].error_pct))[:WORST_ROWS]
    return {
        "sources": sources,
        "grades": [_grade(source.figures.get("mean_abs_pct")) for source in sources],
        "tiles": _tiles(sources, [run for run, _ in runs]),
        "figures": figures,
        "histograms": histograms,
        "worst": worst,
        "left_out": [(s, reason, n) for s in sources for reason, n in s.left_out.items()],
        "unseen": unseen,
        "good": GOOD_PCT,
        "fair": FAIR_PCT,
    }


def _tiles(sources: Sequence[Source], runs: Sequence[Run]) -> list[tuple[str, str, str]]:
    """Label, figure, remark of what stands at the top."""
    rows, used = sum(s.rows for s in sources), sum(s.used for s in sources)
    tiles = [("rows", f"{used:,}", f"of {rows:,} judged")]
    if runs:
        errors = np.abs([run.error_pct for run in runs])
        inside = np.mean([run.low_s <= run.measured_s <= run.high_s for run in runs])
        beyond = np.mean(errors > FAIR_PCT)
        tiles += [
            ("error of a step time", f"{np.median(errors):.1f} %", "median over all runs"),
            ("runs beyond ± 15 %", f"{100 * beyond:.0f} %", f"of {len(runs):,} with a step time"),
            ("within p5 to p95", f"{100 * inside:.0f} %", "of the measured step times"),
        ]
    fits = [s.figures["fit_accuracy"] for s in sources if s.figures.get("fit_accuracy") is not None]
    if fits:
        share = np.mean([fit for fit in fits if fit is not None])
        tiles.append(("fit or failure predicted", f"{100 * share:.0f} %", "of runs that tell of memory"))
    return tiles


def _grade(mean_pct: float | None) -> str:
    if mean_pct is None:
        return ""
    return "good" if mean_pct <= GOOD_PCT else "fair" if mean_pct <= FAIR_PCT else "poor"


def scatter_figure(sources: Sequence[Source]) -> Figure:
    """Predicted against measured seconds, both logarithmic, one colour and symbol a source."""
    seconds = [value for s in sources for run in s.runs for value in (run.measured_s, run.predicted_s)]
    low, high = (min(seconds) / 1.3, max(seconds) * 1.3) if seconds else (0.1, 10.0)
    limits = [float(np.log10(low)), float(np.log10(high))]
    lines = [_line(low, high, 1.0, "solid", "as measured")]
    lines += [_line(low, high, 1 / BAND, "dot", ""), _line(low, high, BAND, "dot", f"{BAND - 1:.0%} off")]
    return {
        "data": [*lines, *(_points(place, source) for place, source in enumerate(sources))],
        "layout": {
            "height": 620,
            "margin": {**MARGIN, "l": 60},
            "legend": {"x": 1.02, "y": 1, "font": {"size": 11}},
            "xaxis": {"type": "log", "range": limits, "title": {"text": "measured step, s"}},
            "yaxis": {"type": "log", "range": limits, "title": {"text": "predicted step, s"}},
            "hovermode": "closest",
        },
    }


def _line(low: float, high: float, factor: float, dash: str, name: str) -> Figure:
    return {
        "type": "scatter",
        "mode": "lines",
        "x": [low, high],
        "y": [low * factor, high * factor],
        "line": {"dash": dash, "width": 1, "color": "#888888"},
        "name": name,
        "showlegend": bool(name),
        "hoverinfo": "skip",
    }


def _points(place: int, source: Source) -> Figure:
    return {
        "type": "scatter",
        "mode": "markers",
        "name": plot_text(f"{_shortened(source.title)} ({len(source.runs):,})"),
        "x": [_short(run.measured_s) for run in source.runs],
        "y": [_short(run.predicted_s) for run in source.runs],
        "marker": {
            "color": COLOURS[place % len(COLOURS)],
            "symbol": SYMBOLS[(place + place // len(COLOURS)) % len(SYMBOLS)],  # no pair twice among 49
            "size": 6,
            "opacity": 0.65,
        },
        "text": [
            plot_text(f"{run.place} {run.model}: {formats.error(run.error_pct)}") for run in source.runs
        ],
        "hovertemplate": "%{text}<br>%{x:.4g} s measured, %{y:.4g} s predicted<extra></extra>",
    }


def bin_counts(errors_pct: Sequence[float]) -> list[tuple[float, int]]:
    """(middle of a bar, runs in it); what is beyond the reach is in the outermost bars."""
    edges = np.arange(-REACH_PCT, REACH_PCT + BIN_PCT, BIN_PCT)
    clipped = np.clip(errors_pct, edges[0], np.nextafter(edges[-1], 0.0))
    counts, _ = np.histogram(clipped, edges)
    middles = (edges[:-1] + edges[1:]) / 2
    return [(float(middle), int(count)) for middle, count in zip(middles, counts, strict=True)]


def histogram_figure(errors_pct: Sequence[float]) -> Figure:
    """Runs by their signed error, in bars of 5 %."""
    bars = bin_counts(errors_pct)
    return {
        "data": [
            {
                "type": "bar",
                "x": [middle for middle, _ in bars],
                "y": [count for _, count in bars],
                "width": BIN_PCT * 0.92,
                "marker": {
                    "color": [COLOURS[0] if abs(middle) < FAIR_PCT else COLOURS[1] for middle, _ in bars]
                },
                "hovertemplate": "%{x:+.1f} % ± 2.5: %{y} runs<extra></extra>",
            }
        ],
        "layout": {
            "height": 170,
            "margin": {"l": 34, "r": 8, "t": 6, "b": 34},
            "showlegend": False,
            "bargap": 0,
            "xaxis": {
                "range": [-REACH_PCT - BIN_PCT, REACH_PCT + BIN_PCT],
                "tickvals": [-60, -40, -20, 0, 20, 40, 60],
                "ticktext": ["≤ −60", "−40", "−20", "0", "20", "40", "≥ 60 %"],
                "zeroline": True,
            },
            "yaxis": {"rangemode": "tozero", "nticks": 4},
        },
    }


def _bars(source: Source) -> list[tuple[str, int]]:
    """The histogram as a table: what each bar spans, and the runs in it."""
    counted = bin_counts([run.error_pct for run in source.runs])
    return [
        (f"{middle - BIN_PCT / 2:+.0f} to {middle + BIN_PCT / 2:+.0f} %", n) for middle, n in counted if n
    ]


def _short(value: float) -> float:
    return float(f"{value:.5g}")


def _shortened(text: str, longest: int = 44) -> str:
    return text if len(text) <= longest else text[: longest - 1] + "…"
