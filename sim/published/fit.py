"""The one constant of an accelerator that is fitted on whole runs: what is left of its rates in hours of
training (`Accelerator.sustained`).

The fit is a search over a grid: for each family of accelerators the value with the least error, each source
counting as much as any other, however many rows it has.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean

from ..hardware.cluster import Cluster
from .case import Case, case_of
from .left_out import LeftOutError
from .prediction import Prediction, Predictor
from .table import Row

GRID = (0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 1.0)
"""Values of `Accelerator.sustained` that are tried."""

FAMILIES = {"A100": ("a100", 0.9), "H100": ("h100|h200", 0.8), "B200": ("b200|b300", 0.65)}
"""Accelerators that share a value: pattern of their names, and what the files of those without another power
limit state. Others of the family keep their ratio to that."""


@dataclass(slots=True)
class SustainedFit:
    """Fits the families' values on some rows, again and again; what was predicted once is remembered."""

    samples: int = 32
    """Steps drawn for each prediction, as for those that the fit is compared with."""
    _by_value: dict[float, Predictor] = field(default_factory=dict)
    _errors: dict[tuple[int, float], float | None] = field(default_factory=dict)
    _cases: dict[int, Case | None] = field(default_factory=dict)

    def __call__(self, rows: Sequence[Row]) -> Predictor:
        """A predictor with each family's best value on ``rows``."""
        chosen = self.best(rows)
        return _Chosen(chosen=chosen, by_value={value: self._predictor(value) for value in chosen.values()})

    def best(self, rows: Sequence[Row]) -> dict[str, float]:
        """The best value of each family; of one without a row, the mean of the others'."""
        found = {}
        for family in FAMILIES:
            own = [row for row in rows if self._family(row) == family]
            if own:
                found[family] = min(GRID, key=lambda value: self._error(own, value))
        others = {family: fmean(found.values()) for family in FAMILIES if found and family not in found}
        return found | others

    def _error(self, rows: Sequence[Row], value: float) -> float:
        """Mean over sources of the mean absolute logarithm of predicted over measured."""
        by_source: dict[str, list[float]] = {}
        for row in rows:
            error = self._row_error(row, value)
            if error is not None:
                by_source.setdefault(row.source, []).append(error)
        return fmean(map(fmean, by_source.values())) if by_source else 0.0

    def _row_error(self, row: Row, value: float) -> float | None:
        key = (id(row), value)
        if key not in self._errors:
            case = self._case(row)
            self._errors[key] = _error(case, self._predictor(value)) if case else None
        return self._errors[key]

    def _case(self, row: Row) -> Case | None:
        if id(row) not in self._cases:
            try:
                self._cases[id(row)] = case_of(row)
            except LeftOutError:
                self._cases[id(row)] = None
        return self._cases[id(row)]

    def _family(self, row: Row) -> str | None:
        case = self._case(row)
        return family_of(case.hardware.accelerator) if case and case.step_s is not None else None

    def _predictor(self, value: float) -> Predictor:
        if value not in self._by_value:
            self._by_value[value] = Predictor(samples=self.samples, adjust=lambda c: with_sustained(c, value))
        return self._by_value[value]


@dataclass(slots=True)
class _Chosen(Predictor):
    """Predicts each case with its family's value."""

    chosen: Mapping[str, float] = field(default_factory=dict)
    by_value: Mapping[float, Predictor] = field(default_factory=dict)

    def predict(self, case: Case) -> Prediction:
        value = self.chosen.get(family_of(case.hardware.accelerator) or "")
        return Predictor.predict(self, case) if value is None else self.by_value[value].predict(case)


def family_of(accelerator: str) -> str | None:
    """The family of an accelerator by its name or its file's; None for those that nothing is fitted for."""
    found = (
        name for name, (pattern, _) in FAMILIES.items() if re.search(pattern, accelerator, re.IGNORECASE)
    )
    return next(found, None)


def with_sustained(cluster: Cluster, value: float) -> Cluster:
    """``cluster`` with ``value`` for its family, in the ratio its own file has to the family's."""
    own = cluster.accelerator
    family = family_of(own.name)
    if family is None:
        return cluster
    _, stated = FAMILIES[family]
    return replace(cluster, accelerator=replace(own, sustained=min(1.0, own.sustained * value / stated)))


def _error(case: Case, predictor: Predictor) -> float | None:
    if case.step_s is None:
        return None
    try:
        return abs(math.log(predictor.predict(case).step_s / case.step_s))
    except LeftOutError:
        return None
