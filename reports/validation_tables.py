"""The tables that `traincast validate` prints."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..sim.api.validate import Validation
from .table import Table

if TYPE_CHECKING:
    from ..sim.published.leave_one_out import LeftOneOut
    from ..sim.published.score import Score
    from ..sim.published.validation import Judged

LONGEST_SOURCE = 44
_COLUMNS = (
    *("file", "source", "rows", "used", "mean %", "median %", "p90 %", "max %", "bias %"),
    *("rank corr.", "regret %", "fit right %", "memory %", "in p5-p95 %"),
)


def validation_tables(found: Validation, worst: int = 5) -> list[Table]:
    """Errors by source, those of sources left out of a fit, rows left out, the worst; no empty one."""
    tables = (
        score_table(found.scores),
        unseen_table(found.unseen),
        left_out_table(found.scores),
        worst_table(found.judged, worst),
    )
    return [table for table in tables if table.rows]


def score_table(scores: Sequence[Score]) -> Table:
    """One line for each file and source; absolute errors of step time unless the column says otherwise."""
    return Table(
        title="Error of predicted step times",
        columns=_COLUMNS,
        rows=tuple(_score_row(score) for score in scores),
        text_columns=(0, 1),
    )


def _score_row(score: Score) -> tuple[str, ...]:
    errors = (score.mean_abs_pct, score.median_abs_pct, score.p90_abs_pct, score.max_abs_pct)
    return (
        score.file,
        _shortened(score.source),
        f"{score.rows:,}",
        f"{score.used:,}",
        *(_figure(error) for error in errors),
        _figure(score.bias_pct, "+.1f"),
        _figure(score.spearman, ".3f"),
        _figure(score.regret_pct),
        _figure(_percent(score.fit_accuracy)),
        _figure(score.memory_mean_abs_pct),
        _figure(_percent(score.interval_coverage), ".0f"),
    )


def unseen_table(found: Sequence[LeftOneOut]) -> Table:
    """Mean absolute errors of each source, by constants fitted with it and without it."""
    rows = [
        (
            one.file,
            _shortened(one.source),
            _figure(one.seen.mean_abs_pct),
            _figure(one.unseen.mean_abs_pct),
            _figure(one.growth_pct, "+.0f"),
        )
        for one in found
    ]
    columns = ("file", "source", "mean %", "fitted without it %", "growth %")
    return Table(title="Left one out", columns=columns, rows=tuple(rows), text_columns=(0, 1))


def left_out_table(scores: Sequence[Score]) -> Table:
    """Rows that are not used, by reason."""
    rows = [
        (score.file, _shortened(score.source), f"{count:,}", reason)
        for score in scores
        for reason, count in score.left_out.items()
    ]
    columns = ("file", "source", "rows", "why")
    return Table(title="Left out", columns=columns, rows=tuple(rows), text_columns=(0, 1, 3))


def worst_table(judged: Sequence[Judged], count: int) -> Table:
    """The ``count`` rows with the largest absolute error of step time."""
    errors = [(abs(one.error_pct), one) for one in judged if one.error_pct is not None]
    worst = sorted(errors, key=lambda pair: -pair[0])[:count]
    rows = [_worst_row(one) for _, one in worst]
    columns = ("row", "model", "GPUs", "strategy", "measured s", "predicted s", "error %")
    return Table(title="Worst rows", columns=columns, rows=tuple(rows), text_columns=(0, 1, 3))


def _worst_row(one: Judged) -> tuple[str, ...]:
    case, prediction = one.case, one.prediction
    assert case is not None  # it has an error
    assert prediction is not None
    assert case.step_s is not None
    return (
        f"{one.row.file}:{one.row.line}",
        case.job.model.name,
        f"{case.gpus:,}",
        case.strategy.label,
        f"{case.step_s:.4g}",
        f"{prediction.step_s:.4g}",
        _figure(one.error_pct, "+.1f"),
    )


def _percent(share: float | None) -> float | None:
    return None if share is None else 100 * share


def _figure(value: float | None, form: str = ".1f") -> str:
    return "-" if value is None else format(value, form)


def _shortened(text: str) -> str:
    return text if len(text) <= LONGEST_SOURCE else text[: LONGEST_SOURCE - 1] + "…"
