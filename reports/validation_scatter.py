"""A picture of predicted against measured step times, one mark a run, both axes logarithmic."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from .charts import COLOURS
from .figures import clean, new_figure, plain, save

MARKS = ("o", "s", "^", "D", "v", "P", "X")
BAND = 1.2
"""The dotted lines: this factor off."""
MARGIN = 1.3
LONGEST_NAME = 48


def scatter_png(
    runs: Mapping[str, Sequence[tuple[float, float]]], path: Path, title: str = "predicted against measured"
) -> None:
    """Draw ``runs``: by source, pairs of measured and predicted seconds, all above 0; sources without any are
    left out.

    Raises:
        UsageError: the file cannot be written.
    """
    shown = {name: list(pairs) for name, pairs in runs.items() if pairs}
    figure = new_figure(8.2, 6.2)
    axis = figure.subplots()
    for place, (name, pairs) in enumerate(shown.items()):
        measured, predicted = zip(*pairs, strict=True)
        label = f"{_shortened(name)} ({len(pairs):,})"
        colour, mark = COLOURS[place % len(COLOURS)], MARKS[(place + place // len(COLOURS)) % len(MARKS)]
        axis.scatter(
            measured, predicted, s=16, marker=mark, color=colour, alpha=0.6, linewidths=0, label=label
        )
    seconds = [value for pairs in shown.values() for pair in pairs for value in pair]
    limits = (min(seconds) / MARGIN, max(seconds) * MARGIN) if seconds else (0.1, 10.0)
    axis.plot(limits, limits, color="black", linewidth=1, label="as measured")
    for factor in (1 / BAND, BAND):
        label = f"{BAND - 1:.0%} off" if factor > 1 else None
        line = [factor * limit for limit in limits]
        axis.plot(limits, line, color="#777777", linewidth=1, linestyle=":", label=label)
    axis.set(xscale="log", yscale="log", xlim=limits, ylim=limits, aspect="equal")
    axis.set_xlabel("measured step, s")
    axis.set_ylabel("predicted step, s")
    axis.set_title(plain(title), loc="left", fontsize=11, fontweight="bold")
    axis.legend(frameon=False, fontsize=7, loc="upper left", bbox_to_anchor=(1.01, 1.0))
    clean(axis)
    save(figure, path)


def _shortened(name: str) -> str:
    text = plain(name)
    return text if len(text) <= LONGEST_NAME else text[: LONGEST_NAME - 1] + "…"
