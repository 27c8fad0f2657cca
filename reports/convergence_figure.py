"""Loss against seconds of several update protocols as one PNG: predicted as lines, measured as points."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..sim.api.converge import Convergence
from ..sim.files.writer import make_directory, replacing
from .formats import printable

COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#000000")
"""Of Okabe and Ito, as in `palette.py`."""

MARKERS = "os^Dv<>"
DPI = 150
POINTS = 40
"""Measured points of one curve that are drawn at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LossLine:
    """One protocol's losses."""

    name: str
    times_s: Sequence[float]
    losses: Sequence[float]


def convergence_png(found: Convergence, path: Path) -> None:
    """Draw what `converge` found."""
    lines = [
        [LossLine(name=one.synchrony, times_s=one.times_s, losses=one.losses) for one in curves]
        for curves in (found.predicted, found.measured)
    ]
    losses_png(lines[0], lines[1], found.target_loss, path)


def losses_png(
    predicted: Sequence[LossLine], measured: Sequence[LossLine], target: float, path: Path
) -> None:
    """Draw all curves over one axis of seconds, with the target as a dashed line.

    Raises:
        UsageError: the file cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.0, 4.6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    names = dict.fromkeys(line.name for line in [*predicted, *measured])
    places = {name: place for place, name in enumerate(names)}
    for line in predicted:
        colour = COLOURS[places[line.name] % len(COLOURS)]
        axes.plot(line.times_s, line.losses, color=colour, label=f"{_plain(line.name)} predicted")
    for line in measured:
        place = places[line.name]
        every = max(1, len(line.times_s) // POINTS)
        axes.plot(
            line.times_s[::every],
            line.losses[::every],
            linestyle="none",
            marker=MARKERS[place % len(MARKERS)],
            markersize=4,
            markerfacecolor="none",
            color=COLOURS[place % len(COLOURS)],
            label=f"{_plain(line.name)} measured",
        )
    axes.axhline(target, color="#666666", linestyle="--", linewidth=1)
    axes.set_xlabel("seconds")
    axes.set_ylabel("training loss")
    axes.set_yscale("log")
    for axis_format in (axes.yaxis.set_major_formatter, axes.yaxis.set_minor_formatter):
        axis_format("{x:g}")
    axes.legend(frameon=False, fontsize=8, ncols=2 if measured else 1)
    axes.spines[["top", "right"]].set_visible(False)
    make_directory(path.parent)
    with replacing(path) as file:
        figure.savefig(file, format="png", dpi=DPI)


def _plain(name: str) -> str:
    return printable(name).replace("$", r"\$")
