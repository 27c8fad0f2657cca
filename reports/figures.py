"""Figures for papers and READMEs: PNG files drawn by matplotlib without a screen.

They show what the report's charts show. Names come from files, so dollar signs are escaped: matplotlib
would read them as mathematics. matplotlib is imported when a figure is drawn.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..sim.files.writer import make_directory, replaced_together, replacing
from ..sim.trace.trace import Span, Trace
from . import formats
from .accuracy_charts import BAND_PCT
from .charts import BARS_SHARE, MEASURED, PREDICTED, measured_peaks, memory_names, name_of
from .lanes import Picture, picture
from .palette import MEMORY_PARTS, PHASES, memory_parts, phase_of
from .result_file import PlanEntry, Quantiles, read_result, read_traces

MAX_SPANS = 20_000
DPI = 150
PICTURES = ("accuracy.png", "timeline.png", "memory.png")
HATCH_GREY = "#00000055"


def plain(text: object) -> str:
    """``text`` so that matplotlib shows it as it is."""
    return formats.printable(text).replace("$", r"\$")


def write_figures(directory: Path, output: Path) -> list[Path]:
    """Write `accuracy.png` and, for the best plan that was run (or the best), `timeline` and `memory`.

    ``directory`` is as `traincast.sim.search.result` lays it out. Returns the files.

    Raises:
        InputError: a file of the directory cannot be used.
        UsageError: a figure cannot be written.
    """
    result = read_result(directory)
    entry = next((plan for plan in result.plans if plan.measured), result.plans[0])
    predicted, measured = read_traces(directory, entry)
    written = ["accuracy.png"]
    with replaced_together(output, replaces=PICTURES) as new:
        accuracy_png(result.plans, new / written[0])
        if predicted is not None or measured is not None:
            written.append("timeline.png")
            timeline_png(predicted, measured, new / written[-1], title=name_of(entry))
        if entry.predicted.memory:
            written.append("memory.png")
            memory_png(entry, result.cluster.memory_bytes, new / written[-1])
    return [output / name for name in written]


def timeline_png(predicted: Trace | None, measured: Trace | None, path: Path, title: str = "") -> None:
    """Every rank a line, predicted above measured on one axis of time. Needs one of the two."""
    save(timeline_figure(predicted, measured, title), path)


def timeline_figure(
    predicted: Trace | None, measured: Trace | None, title: str = "", width: float = 9.0
) -> Any:
    """The same as a matplotlib figure, ``width`` inches wide."""
    traces = [trace for trace in (predicted, measured) if trace is not None]
    first = picture(traces[0], MAX_SPANS)
    shown = [first, *(picture(trace, MAX_SPANS, first.ranks) for trace in traces[1:])]
    unit, unit_name = formats.axis_unit(max(part.length_s for part in shown))
    height = 1.3 + sum(0.6 + 0.34 * len(part.ranks) for part in shown)
    figure = new_figure(width, height)
    axes = figure.subplots(len(shown), 1, sharex=True, squeeze=False)[:, 0]
    for axis, trace, part in zip(axes, traces, shown, strict=True):
        _gantt(axis, part, unit)
        axis.set_title(
            f"{trace.source}: {formats.seconds(trace.step_time_s)} a step", loc="left", fontsize=10
        )
        axis.axvline(trace.step_time_s / unit, color=MEASURED, linestyle="--", linewidth=1.2)
    axes[-1].set_xlabel(f"{unit_name} since the step began")
    used = {phase_of(span.kind, span.stream).key for part in shown for span in part.spans}
    handles = [_patch(p.label, p.colour, p.hatch) for p in PHASES if p.key in used]
    figure.legend(handles=handles, loc="outside lower left", ncols=5, frameon=False, fontsize=9)
    figure.suptitle(plain(title), x=0.01, ha="left", fontsize=11, fontweight="bold")
    return figure


def _gantt(axis: Any, shown: Picture, unit: float) -> None:
    """Compute as thick bars, communication as thin ones above; one collection for each phase and line."""
    places = {rank: place for place, rank in enumerate(shown.ranks)}
    bars: dict[tuple[int, bool, str], list[Span]] = {}
    for span in shown.spans:
        key = (places[span.rank], span.stream == "compute", phase_of(span.kind, span.stream).key)
        bars.setdefault(key, []).append(span)
    for (place, compute, phase_key), spans in bars.items():
        phase = next(phase for phase in PHASES if phase.key == phase_key)
        lane = (place - 0.23, 0.62) if compute else (place - 0.43, 0.16)
        intervals = [(span.start / unit, span.duration / unit) for span in spans]
        style = {"facecolor": phase.colour, "edgecolor": HATCH_GREY, "linewidth": 0.4, "hatch": phase.hatch}
        axis.broken_barh(intervals, lane, **style)
    axis.set_yticks(range(len(shown.ranks)), labels=[f"rank {rank}" for rank in shown.ranks])
    axis.set_ylim(len(shown.ranks) - 0.4, -0.6)
    axis.set_xlim(left=0)
    clean(axis)


def accuracy_png(plans: Sequence[PlanEntry], path: Path) -> None:
    """Step times with p5 to p95; next to them, where plans were run, the signed errors of step time and
    of peak memory with their band."""
    runs = [entry for entry in plans if entry.measured and entry.error_pct is not None]
    weighed = [entry for entry in runs if entry.memory_error_pct is not None]
    columns = 1 + bool(runs) + bool(weighed)
    figure = new_figure(7.0 + 2.0 * (columns - 1), 1.4 + 0.3 * len(plans))
    ratios = [5, 3, 3][:columns]
    axes = figure.subplots(1, columns, sharey=True, squeeze=False, width_ratios=ratios)[0]
    places = {entry.id: place for place, entry in enumerate(plans)}
    unit, unit_name = formats.axis_unit(max(entry.predicted.step_time_s.p50 for entry in plans))
    expected = [(places[entry.id], entry.predicted.step_time_s) for entry in plans]
    _whiskers(axes[0], expected, unit, "predicted", PREDICTED, "o")
    if runs:
        times = [(places[e.id], e.measured.step_time_s) for e in runs if e.measured]
        _whiskers(axes[0], times, unit, "measured", MEASURED, "D")
        _errors(axes[1], [(places[entry.id], entry.error_pct or 0.0) for entry in runs], "step time")
    if weighed:
        own = [(places[entry.id], entry.memory_error_pct or 0.0) for entry in weighed]
        _errors(axes[2], own, "peak memory")
    axes[0].set_yticks(range(len(plans)), labels=[plain(name_of(entry)) for entry in plans])
    axes[0].set_ylim(len(plans) - 0.4, -0.6)
    axes[0].set_xlim(left=0)
    axes[0].set_xlabel(f"step time, {unit_name} (p5, p50, p95)")
    axes[0].legend(frameon=False, fontsize=9)
    for axis in axes:
        clean(axis)
    save(figure, path)


def _whiskers(
    axis: Any, times: Sequence[tuple[int, Quantiles]], unit: float, label: str, colour: str, marker: str
) -> None:
    middle = [t.p50 / unit for _, t in times]
    below = [max(t.p50 - t.p5, 0) / unit for _, t in times]
    above = [max(t.p95 - t.p50, 0) / unit for _, t in times]
    fill = colour if marker == "o" else "white"
    axis.errorbar(
        middle,
        [place for place, _ in times],
        xerr=[below, above],
        fmt=marker,
        color=colour,
        markerfacecolor=fill,
        capsize=3,
        label=label,
    )


def _errors(axis: Any, errors: Sequence[tuple[int, float]], quantity: str) -> None:
    axis.axvspan(-BAND_PCT, BAND_PCT, color="#009E73", alpha=0.14, linewidth=0)
    axis.axvline(0, color="#555555", linewidth=0.8)
    bars = axis.barh([place for place, _ in errors], [error for _, error in errors], 0.5, color="#56B4E9")
    axis.bar_label(bars, labels=[formats.error(error) for _, error in errors], padding=3, fontsize=8)
    reach = max(BAND_PCT * 1.5, *(abs(error) * 1.4 for _, error in errors))
    axis.set_xlim(-reach, reach)
    axis.set_xlabel(f"error of {quantity}, % (±{BAND_PCT:g})")


def memory_png(entry: PlanEntry, capacity_bytes: float, path: Path) -> None:
    """Bytes by stage and part, stacked, against the capacity, with measured peaks where there are some."""
    names = memory_names(entry)
    parts = [memory_parts(row) for row in entry.predicted.memory]
    figure = new_figure(9.0, 1.6 + 0.36 * len(names))
    axis = figure.subplots()
    left = stack_bars(axis, names, parts)
    peaks = measured_peaks(entry)
    if peaks:
        sizes = [size / 2**30 for size in peaks.values()]
        axis.plot(sizes, list(peaks), "D", color="black", markerfacecolor="white", label="measured peak")
    fullest = max([*left, *(size / 2**30 for size in peaks.values())], default=0.0) * 2**30
    if capacity_bytes * BARS_SHARE <= fullest:
        label = f"capacity {formats.size(capacity_bytes)}"
        axis.axvline(capacity_bytes / 2**30, color=MEASURED, linestyle="--", label=label)
    beyond = "" if capacity_bytes * BARS_SHARE <= fullest else f" (of {formats.size(capacity_bytes)})"
    axis.set_xlabel(f"GiB at the peak{beyond}")
    axis.set_title(plain(name_of(entry)), loc="left", fontsize=11, fontweight="bold")
    figure.legend(loc="outside lower left", ncols=5, frameon=False, fontsize=9)
    clean(axis)
    save(figure, path)


def stack_bars(axis: Any, names: Sequence[str], parts: Sequence[Mapping[str, float]]) -> list[float]:
    """Bars of bytes by part, one for each of ``names`` from the top; where each ends, in GiB."""
    left = [0.0] * len(names)
    for key, (label, colour, hatch, _) in MEMORY_PARTS.items():
        sizes = [part.get(key, 0.0) / 2**30 for part in parts]
        if any(sizes):
            style = {"color": colour, "edgecolor": HATCH_GREY, "hatch": hatch, "label": label}
            axis.barh(range(len(names)), sizes, 0.62, left=left, **style)
            left = [a + b for a, b in zip(left, sizes, strict=True)]
    axis.set_yticks(range(len(names)), labels=[plain(name) for name in names])
    axis.set_ylim(len(names) - 0.4, -0.6)
    return left


def new_figure(width: float, height: float) -> Any:
    """A figure of its own, without pyplot's global state; saving it as PNG draws with Agg."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _patch(label: str, colour: str, hatch: str) -> Any:
    from matplotlib.patches import Patch

    return Patch(facecolor=colour, edgecolor=HATCH_GREY, hatch=hatch, label=label)


def clean(axis: Any) -> None:
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(axis="x", color="#e3e7ec", linewidth=0.7)
    axis.set_axisbelow(True)
    axis.tick_params(labelsize=9)


def save(figure: Any, path: Path) -> None:
    """The same figure gives the same bytes: no date and no version in the file."""
    make_directory(path.parent)
    with replacing(path) as file:
        figure.savefig(file, format="png", dpi=DPI, bbox_inches="tight", metadata={"Software": None})
