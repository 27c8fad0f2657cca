"""How right predictions are: errors, rank correlation, regret, fit, memory and coverage of one source."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from .judged import Judged

LEAST_RANKED = 3
"""Runs of a sweep from which a rank correlation is taken."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """Of the rows of one source in one file. None where a figure does not apply."""

    file: str
    source: str
    rows: int
    used: int
    """Rows with a prediction; those that failed for memory among them."""
    left_out: Mapping[str, int]
    """Rows by the first reason why they are not used."""
    mean_abs_pct: float | None
    """Of the absolute error of step time; likewise the next three."""
    median_abs_pct: float | None
    p90_abs_pct: float | None
    max_abs_pct: float | None
    bias_pct: float | None
    """Mean signed error; below 0 where predictions are too fast."""
    spearman: float | None
    """Rank correlation of step times within a sweep, mean over sweeps of at least three runs."""
    regret_pct: float | None
    """Measured time of the run that is predicted fastest over the best of its sweep, minus 1, mean over
    sweeps of at least two strategies; of several predicted alike, their mean."""
    max_regret_pct: float | None
    sweeps: int
    """Sweeps of at least two strategies."""
    fit_accuracy: float | None
    """Share of rows whose fit or failure for memory is predicted, where the table tells."""
    memory_mean_abs_pct: float | None
    interval_coverage: float | None
    """Share of measured step times within the p5 to p95 predicted."""

    def to_dict(self) -> dict[str, object]:
        """As `validate --json` prints it."""
        return {**asdict(self), "left_out": dict(self.left_out)}


def score_of(file: str, source: str, judged: Sequence[Judged]) -> Score:
    """The score of all rows of one source."""
    used = [one for one in judged if one.prediction is not None]
    errors = [one.error_pct for one in used if one.error_pct is not None]
    sizes = np.abs(errors)
    memory = [abs(one.memory_error_pct) for one in used if one.memory_error_pct is not None]
    sweeps = _sweeps(used)
    ranked = [value for sweep in sweeps if (value := rank_correlation(*_times(sweep))) is not None]
    regrets = [regret_pct(*_times(sweep)) for sweep in sweeps]
    return Score(
        file=file,
        source=source,
        rows=len(judged),
        used=len(used),
        left_out=dict(Counter(one.reason for one in judged if one.reason).most_common()),
        mean_abs_pct=float(sizes.mean()) if errors else None,
        median_abs_pct=float(np.median(sizes)) if errors else None,
        p90_abs_pct=float(np.quantile(sizes, 0.9)) if errors else None,
        max_abs_pct=float(sizes.max()) if errors else None,
        bias_pct=statistics.fmean(errors) if errors else None,
        spearman=_mean(ranked),
        regret_pct=_mean(regrets),
        max_regret_pct=max(regrets, default=None),
        sweeps=len(sweeps),
        fit_accuracy=_mean(_foretold(used)),
        memory_mean_abs_pct=_mean(memory),
        interval_coverage=_mean(_covered(used)),
    )


def _mean(values: Sequence[float]) -> float | None:
    return statistics.fmean(values) if values else None


def _foretold(used: Sequence[Judged]) -> list[float]:
    return [
        float(one.prediction.fits == one.case.ran)
        for one in used
        if one.prediction and one.case and one.case.ran is not None
    ]


def _covered(used: Sequence[Judged]) -> list[float]:
    return [
        float(one.prediction.low_s <= one.case.step_s <= one.prediction.high_s)
        for one in used
        if one.prediction and one.case and one.case.step_s is not None
    ]


def _sweeps(used: Sequence[Judged]) -> list[list[Judged]]:
    """Runs that differ only in strategy, where at least two strategies were measured."""
    groups: dict[tuple[object, ...], list[Judged]] = {}
    for one in used:
        if one.case and one.case.step_s is not None:
            groups.setdefault(one.case.sweep, []).append(one)
    return [own for own in groups.values() if len({one.case.strategy for one in own if one.case}) > 1]


def _times(sweep: Sequence[Judged]) -> tuple[list[float], list[float]]:
    """(predicted, measured) seconds."""
    pairs = [
        (one.prediction.step_s, one.case.step_s)
        for one in sweep
        if one.prediction and one.case and one.case.step_s is not None
    ]
    return [predicted for predicted, _ in pairs], [measured for _, measured in pairs]


def regret_pct(predicted: Sequence[float], measured: Sequence[float]) -> float:
    """What following the prediction costs over the best, percent; ties of the prediction by their mean."""
    best = min(predicted)
    chosen = [m for p, m in zip(predicted, measured, strict=True) if p == best]
    return 100 * (statistics.fmean(chosen) / min(measured) - 1)


def rank_correlation(predicted: Sequence[float], measured: Sequence[float]) -> float | None:
    """Spearman's; None below three runs, or where one side is all alike."""
    if len(predicted) < LEAST_RANKED or len(set(predicted)) == 1 or len(set(measured)) == 1:
        return None
    return float(np.corrcoef(_ranks(predicted), _ranks(measured))[0, 1])


def _ranks(values: Sequence[float]) -> np.ndarray:
    """Ranks from 0; those of ties are their mean."""
    array = np.asarray(values)
    below = (array[:, None] > array[None, :]).sum(axis=1)
    same = (array[:, None] == array[None, :]).sum(axis=1)
    return below + (same - 1) / 2
