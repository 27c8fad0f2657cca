"""How far predictions were from what was measured: step times, their order, and peak memory."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ..plan.synchrony import is_synchronous
from ..predict.prediction import Prediction
from ..trace.load import slowdown
from ..trace.trace import Trace


@dataclass(frozen=True, slots=True, kw_only=True)
class Accuracy:
    """How far predictions were from measurements."""

    median_abs_pct: float
    max_abs_pct: float
    runs: int
    compared: int
    """Runs whose steps are compared with each other: the synchronous ones, or all where none is."""
    fastest_place: int
    """By measured step time, the place of the one of these that was predicted fastest; 1 is the fastest."""
    fastest_regret_pct: float
    """Its measured step time over the fastest measured, minus 1."""
    memory_median_abs_pct: float | None = None
    """Of the peak of the fullest rank; None where no run measured it."""
    memory_max_abs_pct: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """Where the plan predicted fastest came in, of those that were run and are compared with it."""

    first: int
    """Its index in the ranking."""
    fastest: int
    """That of the plan measured fastest."""
    runs: int
    place: int
    regret_pct: float
    """Measured time of the first over the fastest, minus 1."""


def accuracy_of(ranked: Sequence[Prediction], measured: Mapping[int, Trace]) -> Accuracy:
    """Errors over the plans that were run; ``measured``, at least one, is by place in ``ranked``."""
    errors = [abs(error_pct(ranked[place], trace)) for place, trace in measured.items()]
    found = (memory_error_pct(ranked[place], trace) for place, trace in measured.items())
    memory = [abs(error) for error in found if error is not None]
    alike = standing(ranked, _compared(ranked, measured))
    return Accuracy(
        median_abs_pct=statistics.median(errors),
        max_abs_pct=max(errors),
        runs=len(measured),
        compared=alike.runs,
        fastest_place=alike.place,
        fastest_regret_pct=alike.regret_pct,
        memory_median_abs_pct=statistics.median(memory) if memory else None,
        memory_max_abs_pct=max(memory, default=None),
    )


def standing(ranked: Sequence[Prediction], measured: Mapping[int, Trace]) -> Standing:
    """How the one of ``measured``, at least one, that was predicted fastest compares with the others."""
    first = min(measured, key=lambda index: ranked[index].metrics.step_time_s["p50"])
    order = in_order(measured)
    best = measured[order[0]].step_time_s
    return Standing(
        first=first,
        fastest=order[0],
        runs=len(measured),
        place=order.index(first) + 1,
        regret_pct=100 * (measured[first].step_time_s / best - 1),
    )


def in_order(measured: Mapping[int, Trace]) -> list[int]:
    """Indices of what was run, fastest first; ties in the order of the ranking."""
    return sorted(measured, key=lambda index: (measured[index].step_time_s, index))


def of_kind(ranked: Sequence[Prediction], places: Iterable[int], *, synchronous: bool) -> list[int]:
    """Those of ``places`` whose plans are synchronous, or those whose are not."""
    return [place for place in places if is_synchronous(ranked[place].plan.strategy) == synchronous]


def _compared(ranked: Sequence[Prediction], measured: Mapping[int, Trace]) -> Mapping[int, Trace]:
    synchronous = of_kind(ranked, measured, synchronous=True)
    return {place: measured[place] for place in synchronous} or measured


def expected_s(ranked: Prediction, measured: Trace) -> float:
    """The predicted step time, for the cores that other programs left while it was measured."""
    return ranked.metrics.step_time_s["p50"] * slowdown(ranked.trace, measured)


def error_pct(ranked: Prediction, measured: Trace) -> float:
    """Signed error of the predicted step time, percent of the measured."""
    return 100 * (expected_s(ranked, measured) / measured.step_time_s - 1)


def memory_error_pct(ranked: Prediction, measured: Trace) -> float | None:
    """Signed error of the predicted peak of the fullest rank, percent of the measured; None where a run did
    not measure it."""
    peak = max(measured.peak_memory_bytes.values(), default=0.0)
    return 100 * (max(ranked.metrics.peak_memory_bytes) / peak - 1) if peak else None
