"""A row of a table after judgement."""

from __future__ import annotations

from dataclasses import dataclass

from .case import Case
from .prediction import Prediction
from .table import Row


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
