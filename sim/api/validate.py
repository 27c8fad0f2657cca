"""Predictions scored on published measurements."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..display import Shown
from ..published.fit import SustainedFit
from ..published.judged import Judged
from ..published.leave_one_out import LeftOneOut
from ..published.leave_one_out import leave_one_out as left_one_out
from ..published.prediction import Predictor
from ..published.score import Score
from ..published.table import read_table, shipped_tables
from ..published.validation import judge, scores
from .inputs import check_counts

if TYPE_CHECKING:
    from pandas import DataFrame

Progress = Callable[[str, float], None]


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Validation(Shown):
    """Every row of the tables with its prediction, and how right those are, by file and source."""

    judged: tuple[Judged, ...]
    scores: tuple[Score, ...]
    unseen: tuple[LeftOneOut, ...] = ()
    """Errors of each source by constants fitted without it, where that was asked for."""

    def __repr__(self) -> str:
        used = sum(score.used for score in self.scores)
        return f"Validation({len(self.judged):,} rows of {len(self.scores)} sources, {used:,} predicted)"

    def frame(self) -> DataFrame:
        """The scores, a row for each file and source."""
        from pandas import DataFrame

        return DataFrame([score.to_dict() for score in self.scores])

    def to_dict(self) -> dict[str, Any]:
        """What `validate --json` prints and summary.json holds."""
        whole = {
            "schema": "traincast.validation/1",
            "sources": [score.to_dict() for score in self.scores],
        }
        return {**whole, "left_one_out": [one.to_dict() for one in self.unseen]} if self.unseen else whole


def validate(
    *tables: str | os.PathLike[str],
    samples: int = 32,
    seed: int = 0,
    leave_one_out: bool = False,
    progress: Callable[[str], Any] | None = None,
) -> Validation:
    """Predict every run of ``tables``, and say by source how far off the predictions are.

    A table is a CSV file or the name of one that comes with traincast; none is all of those. What a row does
    not say, or what is not modelled, is not guessed: the row is left out and counted by reason. With
    ``leave_one_out`` constants are also fitted without each source. ``progress`` gives a context manager
    for a title, whose value is called with a text and the fraction done.

    >>> import traincast as tc
    >>> (score,) = tc.validate("korthikanti_recompute", samples=4).scores
    >>> score.used, score.mean_abs_pct < 10
    (9, True)

    Raises:
        InputError: no such table, or none that can be read.
    """
    check_counts(2, samples=samples)
    check_counts(0, seed=seed)
    rows = [row for table in tables or shipped_tables() for row in read_table(table)]
    predictor = Predictor(samples=samples, seed=seed)
    judged = _with(progress, "validate", lambda say: judge(rows, predictor, say))
    unseen: tuple[LeftOneOut, ...] = ()
    if leave_one_out:
        fit = SustainedFit(samples=samples)
        unseen = tuple(_with(progress, "leave one source out", lambda say: left_one_out(judged, fit, say)))
    return Validation(judged=tuple(judged), scores=tuple(scores(judged)), unseen=unseen)


def _with(progress: Callable[[str], Any] | None, title: str, work: Callable[[Progress], Any]) -> Any:
    """What ``work`` gives, which says how far it is."""
    if progress is None:
        return work(lambda text, fraction: None)
    with progress(title) as say:
        return work(say)
