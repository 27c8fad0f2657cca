"""Leave one source out: how well each source is predicted by constants fitted without it.

What is fitted, and how, is whoever's who calls: `leave_one_out` takes a function from rows to a Predictor,
whose `adjust` puts other constants into the clusters that it predicts with.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from .prediction import Predictor
from .score import Score, score_of
from .table import Row
from .validation import Judged, Progress, by_source, judge

Fit = Callable[[Sequence[Row]], Predictor]
"""A predictor whose constants are fitted on these rows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftOneOut:
    """One source, judged by constants that have seen it and by others that have not."""

    file: str
    source: str
    seen: Score
    """By constants fitted on all rows, this source's among them."""
    unseen: Score
    """By constants fitted on the rows of all other sources."""

    @property
    def growth_pct(self) -> float | None:
        """Percent by which the mean absolute error is larger without the source; None where there is none."""
        seen, unseen = self.seen.mean_abs_pct, self.unseen.mean_abs_pct
        return 100 * (unseen / seen - 1) if seen and unseen is not None else None

    def to_dict(self) -> dict[str, object]:
        """As `validate --leave-one-out --json` prints it."""
        return {
            "file": self.file,
            "source": self.source,
            "rows": self.seen.rows,
            "used": self.seen.used,
            "mean_abs_pct": self.seen.mean_abs_pct,
            "mean_abs_pct_without": self.unseen.mean_abs_pct,
            "bias_pct_without": self.unseen.bias_pct,
            "growth_pct": self.growth_pct,
        }


def leave_one_out(
    judged: Sequence[Judged], fit: Fit, progress: Progress | None = None
) -> tuple[LeftOneOut, ...]:
    """Each source of ``judged``, predicted again by ``fit`` on the rows of all others.

    A source is known by its title, whatever files it is in. Sources without a used row are passed over.
    """
    found = []
    for (file, source), own in by_source(judged):
        if not any(one.error_pct is not None for one in own):
            continue
        others = [one.row for one in judged if one.row.source != source]
        again = judge([one.row for one in own], fit(others), progress)
        seen, unseen = (score_of(file, source, rows) for rows in (own, again))
        found.append(LeftOneOut(file=file, source=source, seen=seen, unseen=unseen))
    return tuple(found)
