"""Rows judged: each with its case and prediction, or the reason why it has none."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from .case import Case, case_of
from .left_out import LeftOutError
from .prediction import Prediction, Predictor
from .score import Score, score_of
from .table import Row

Progress = Callable[[str, float], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """One row after judgement; a row left out has a reason and no prediction."""

    row: Row
    case: Case | None = None
    prediction: Prediction | None = None
    reason: str = ""

    @property
    def error_pct(self) -> float | None:
        """Signed error of the predicted step time, percent of the measured; None where none was measured."""
        if self.case is None or self.prediction is None or self.case.step_s is None:
            return None
        return 100 * (self.prediction.step_s / self.case.step_s - 1)

    @property
    def memory_error_pct(self) -> float | None:
        """Signed error of the predicted peak, percent of the measured; None where none was measured."""
        if self.case is None or self.prediction is None or self.case.memory_bytes is None:
            return None
        return 100 * (self.prediction.memory_bytes / self.case.memory_bytes - 1)


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
