"""What the validation page shows, made of judged rows and scores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from .validation_page import Run, Source, Unseen

if TYPE_CHECKING:
    from ..sim.published.leave_one_out import LeftOneOut
    from ..sim.published.score import Score
    from ..sim.published.validation import Judged


def sources(judged: Sequence[Judged], scores: Sequence[Score]) -> list[Source]:
    """One for each score, with its runs and citations."""
    groups: dict[tuple[str, str], list[Judged]] = {}
    for one in judged:
        groups.setdefault((one.row.file, one.row.source), []).append(one)
    return [_source(score, groups[score.file, score.source]) for score in scores]


def _source(score: Score, own: Sequence[Judged]) -> Source:
    return Source(
        file=score.file,
        title=score.source,
        rows=score.rows,
        used=score.used,
        figures={name: value for name, value in score.to_dict().items() if _is_figure(value)},  # type: ignore[misc]
        left_out=score.left_out,
        runs=[run for one in own if (run := _run(one))],
        citations=_citations(own),
    )


def _is_figure(value: object) -> bool:
    return value is None or isinstance(value, float)


def _citations(own: Sequence[Judged]) -> list[str]:
    """Each once, the tables before the configurations."""
    read = [one.row.get("citation") for one in own] + [one.row.get("configuration") for one in own]
    return [citation for citation in dict.fromkeys(read) if citation]


def _run(one: Judged) -> Run | None:
    case, prediction = one.case, one.prediction
    if case is None or prediction is None or case.step_s is None:
        return None
    return Run(
        place=f"{one.row.file}:{one.row.line}",
        model=case.job.model.name,
        accelerator=one.row.get("accelerator"),
        accelerators=case.gpus,
        strategy=case.strategy.label,
        measured_s=case.step_s,
        predicted_s=prediction.step_s,
        low_s=prediction.low_s,
        high_s=prediction.high_s,
    )


def unseen(found: Sequence[LeftOneOut]) -> list[Unseen]:
    """The table of sources judged by constants that have not seen them."""
    return [
        Unseen(
            title=one.source,
            seen_pct=one.seen.mean_abs_pct,
            unseen_pct=one.unseen.mean_abs_pct,
            growth_pct=one.growth_pct,
        )
        for one in found
    ]
