"""A picture of goodput against the interval between checkpoints: simulated runs, and what Daly expects."""

from __future__ import annotations

from pathlib import Path

from ..sim.api.goodput import LongTraining
from . import formats
from .charts import PREDICTED
from .figures import clean, new_figure, plain, save

EXPECTED_COLOUR, MARK_COLOUR = "#D55E00", "#555555"


def goodput_png(whole: LongTraining, path: Path) -> None:
    """Draw goodput against the interval, with the best intervals as lines where they lie within the curve.

    Raises:
        UsageError: the file cannot be written.
    """
    found = whole.found
    intervals = [point.interval_s for point in found.curve]
    low, middle, high, expected = (
        [100.0 * getattr(point, name) for point in found.curve] for name in ("p5", "p50", "p95", "expected")
    )
    marks = {"Young": found.young_s, "Daly": found.daly_s, "best simulated": found.simulated_s}
    machine = f"{whole.accelerators:,} accelerators of {whole.cluster.name}"
    title = f"{machine}, a failure every {formats.duration(found.mtbf_s)}"
    figure = new_figure(8.0, 4.4)
    axis = figure.subplots()
    axis.fill_between(intervals, low, high, color=PREDICTED, alpha=0.2, linewidth=0, label="p5 to p95")
    axis.plot(intervals, middle, color=PREDICTED, linewidth=1.8, label="simulated runs, median")
    axis.plot(intervals, expected, color=EXPECTED_COLOUR, linestyle=":", linewidth=1.8, label="Daly's model")
    styles = ("-", "--", "-.")
    for place, (name, interval) in enumerate(marks.items()):
        if intervals[0] <= interval <= intervals[-1]:
            label = f"{plain(name)}: {formats.duration(interval)}"
            axis.axvline(interval, color=MARK_COLOUR, linewidth=1, linestyle=styles[place % 3], label=label)
    axis.set_xscale("log")
    ticks = [tick for tick in TICKS_S if intervals[0] <= tick <= intervals[-1]]
    axis.set_xticks(ticks, labels=[formats.duration(tick) for tick in ticks])
    axis.minorticks_off()
    axis.set_xlabel("training between checkpoints")
    axis.set_ylabel("goodput, % of the time")
    axis.set_title(plain(title), loc="left", fontsize=11, fontweight="bold")
    axis.legend(frameon=False, fontsize=9)
    clean(axis)
    save(figure, path)


TICKS_S = (
    *(1.0, 3.0, 10.0, 30.0, 60.0, 180.0, 600.0, 1800.0, 3600.0),
    *(3 * 3600.0, 10 * 3600.0, 86400.0, 3 * 86400.0, 10 * 86400.0, 30 * 86400.0),
)
"""Round durations, about a third of a decade apart."""
