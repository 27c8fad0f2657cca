"""Rows judged: each with its case and prediction, or the reason why it has none."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from .case import case_of
from .judged import Judged
from .left_out import LeftOutError
from .prediction import Predictor
from .score import Score, score_of
from .table import Row

Progress = Callable[[str, float], None]


def judge(rows: Sequence[Row], predictor: Predictor, progress: Progress | None = None) -> list[Judged]:
    """Every row, in order, with its prediction or the reason why it is left out."""
    judged = []
    for place, row in enumerate(rows):
        judged.append(_judged(row, predictor))
        if progress:
            progress(row.file, (place + 1) / len(rows))
    return judged


def _judged(row: Row, predictor: Predictor) -> Judged:
    try:
        case = case_of(row)
        return Judged(row=row, case=case, prediction=predictor.predict(case))
    except LeftOutError as reason:
        return Judged(row=row, reason=str(reason))


def scores(judged: Iterable[Judged]) -> list[Score]:
    """One score for each file and source, in the order in which they first come."""
    return [score_of(file, source, own) for (file, source), own in by_source(judged)]


def by_source(judged: Iterable[Judged]) -> Iterator[tuple[tuple[str, str], list[Judged]]]:
    """((file, source), its rows), in the order in which they first come."""
    groups: dict[tuple[str, str], list[Judged]] = {}
    for one in judged:
        groups.setdefault((one.row.file, one.row.source), []).append(one)
    yield from groups.items()
