"""A picture of memory: every rank's peak by what fills it, and of one rank what stands at each pass."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..sim.api.memory import Memory
from ..sim.memory.peak import RankMemory
from . import formats
from .charts import MEASURED
from .figures import HATCH_GREY, clean, new_figure, plain, save, stack_bars
from .palette import MEMORY_PARTS, memory_parts

GIB = 2**30


@dataclass(frozen=True, slots=True, kw_only=True)
class OverTime:
    """What stands on one rank, pass by pass."""

    name: str
    spans: Sequence[tuple[float, float]]
    """(start, end) of each pass in seconds; empty where it is not known."""
    rows: Sequence[Mapping[str, Any]]
    """Bytes by field of a memory estimate at each pass."""


def memory_figure_png(
    names: Sequence[str],
    rows: Sequence[Mapping[str, Any]],
    capacity_bytes: float,
    over_time: OverTime,
    path: Path,
    title: str = "",
) -> None:
    """Draw peaks by place as stacked bars against the capacity, and below them ``over_time`` as areas.

    Raises:
        UsageError: the file cannot be written.
    """
    heights = [0.9 + 0.36 * len(names), 2.8]
    figure = new_figure(9.0, sum(heights) + 1.2)
    bars, areas = figure.subplots(2, 1, height_ratios=heights)
    stack_bars(bars, names, [memory_parts(row) for row in rows])
    line = {"color": MEASURED, "linestyle": "--"}
    bars.axvline(capacity_bytes / GIB, label=f"capacity {formats.size(capacity_bytes)}", **line)
    bars.set_xlabel("GiB at the peak")
    bars.set_title(plain(title), loc="left", fontsize=11, fontweight="bold")
    clean(bars)
    if over_time.rows:
        _areas(areas, over_time)
        areas.axhline(capacity_bytes / GIB, **line)
    clean(areas)
    handles, labels = bars.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower left", ncols=5, frameon=False, fontsize=9)
    save(figure, path)


def _areas(axis: Any, over_time: OverTime) -> None:
    """Each pass from its start to the start of the next, the last to its end."""
    parts = [memory_parts(row) for row in over_time.rows]
    if over_time.spans:
        unit, unit_name = formats.axis_unit(over_time.spans[-1][1])
        edges = [start / unit for start, _ in over_time.spans] + [over_time.spans[-1][1] / unit]
        axis.set_xlabel(f"{unit_name} since the step began")
    else:
        edges = [float(number) for number in range(len(parts) + 1)]
        axis.set_xlabel("passes of the step")
    below = [0.0] * len(edges)
    for key, (_, colour, hatch, _) in MEMORY_PARTS.items():
        sizes = [part.get(key, 0.0) / GIB for part in parts]
        above = [a + b for a, b in zip(below, [*sizes, sizes[-1]], strict=True)]
        if any(sizes):
            style = {"facecolor": colour, "edgecolor": HATCH_GREY, "hatch": hatch, "linewidth": 0.0}
            axis.fill_between(edges, below, above, step="post", **style)
        below = above
    axis.set_xlim(edges[0], edges[-1])
    axis.set_ylim(bottom=0)
    axis.set_ylabel("GiB")
    axis.set_title(f"{plain(over_time.name)}, pass by pass", loc="left", fontsize=10)


def memory_png(found: Memory, path: Path) -> None:
    """Draw what `memory` found: every rank, and the fullest over time."""
    rank = found.fullest
    moments, spans = found.over_time(rank)
    over_time = OverTime(name=found.names[rank], spans=spans, rows=[_with_total(one) for one in moments])
    rows = [_with_total(one) for one in found]
    capacity = found.cluster.accelerator.memory_bytes
    memory_figure_png(found.names, rows, capacity, over_time, path, found.plan.strategy.label)


def _with_total(place: RankMemory) -> dict[str, Any]:
    return {**asdict(place), "total_bytes": place.total_bytes}
