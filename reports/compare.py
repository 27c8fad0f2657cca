"""Predicted against measured: the same table from both sides, joined by phase, rank and action.

A phase's seconds are those of one step, averaged over the ranks. A measured trace holds several steps, so
each action counts with its median over them; an asynchronous prediction plays several rounds in one step,
and counts with their mean. A prediction may show one rank for all that are alike: only ranks that both
sides show are compared. Streams overlap: the seconds of communication phases are
busy seconds of their streams and do not add up with compute; idle is the step less what the compute
stream was busy, so it holds the pipeline's bubble and every wait for communication.
"""

from __future__ import annotations

import math
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from statistics import median
from typing import TYPE_CHECKING, TextIO

import numpy as np

from ..sim.display import Shown
from ..sim.errors import InputError, ToleranceError, UsageError
from ..sim.trace.load import NOTICED_SPEED, Load, beside, load_of, probe_ratio
from ..sim.trace.trace import Span, Trace
from ..sim.trace.trace_reader import read_trace
from . import formats
from .palette import BY_KEY, IDLE, PHASES, phase_of
from .table import Table, show

if TYPE_CHECKING:
    from pandas import DataFrame

    from ..sim.predict.prediction import Prediction

SCHEMA = "traincast.comparison/1"
STEP_TIME = "step_time"
COMPUTE = "compute"
WORST_ACTIONS = 5
"""Actions that are printed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One quantity from both sides, seconds or bytes."""

    name: str
    predicted: float
    measured: float

    @property
    def error_pct(self) -> float | None:
        """Signed, positive where the prediction is too long; None where nothing was measured."""
        return (self.predicted / self.measured - 1) * 100 if self.measured else None

    def to_dict(self, unit: str = "s") -> dict[str, float | None]:
        """As `compare --json` prints it."""
        return {
            f"predicted_{unit}": self.predicted,
            f"measured_{unit}": self.measured,
            "error_pct": self.error_pct,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison(Shown):
    """Where a prediction was right and where it was not."""

    total: Row
    """The step time: medians."""
    phases: tuple[Row, ...]
    """By phase, mean over ranks of one step's seconds; only phases that occur."""
    ranks: tuple[Row, ...]
    """Busy seconds of each rank's compute stream in one step."""
    actions: tuple[Row, ...]
    """By action, as ``2F0``: mean over the ranks that do it."""
    memory: tuple[Row, ...]
    """Peak bytes by rank, where both sides know them."""
    load: Load | None = None
    """How busy the machine was, where the run says so; the prediction is for the cores that were left."""
    speed: float = 1.0
    """Of the processor during the run, over that when it was calibrated; the prediction is for it."""

    def __repr__(self) -> str:
        times = f"{self.total.predicted:.4g} s predicted, {self.total.measured:.4g} s measured"
        return f"Comparison({times}, {formats.error(self.total.error_pct)})"

    def check(self, expression: str) -> None:
        """Fail where the error, of either sign, is past a limit, as `step_time>10%,backward>20%`.

        Raises:
            UsageError: the expression cannot be read, or names what was not compared.
            ToleranceError: a limit is passed; lists each.
        """
        check_tolerance(self, expression)

    def frame(self) -> DataFrame:
        """A row for the step time, each phase, rank and action: predicted, measured (s), error (percent)."""
        from pandas import DataFrame

        parts = (("total", (self.total,)), ("phase", self.phases), ("rank", self.ranks))
        rows = [
            {"what": what, "name": row.name, **row.to_dict()}
            for what, own in (*parts, ("action", self.actions))
            for row in own
        ]
        return DataFrame(rows)

    def to_dict(self) -> dict[str, object]:
        """Plain JSON values."""
        return {
            "schema": SCHEMA,
            "total": self.total.to_dict(),
            "phases": {row.name: row.to_dict() for row in self.phases},
            "ranks": {row.name: row.to_dict() for row in self.ranks},
            "actions": {row.name: row.to_dict() for row in self.actions},
            "peak_memory": {row.name: row.to_dict("bytes") for row in self.memory},
            "load": asdict(self.load) if self.load else None,
            "speed": self.speed,
        }


def _trace(what: Trace | Prediction | str | os.PathLike[str]) -> Trace:
    if isinstance(what, str | os.PathLike):
        return read_trace(what)
    return what if isinstance(what, Trace) else what.trace


def compare(
    predicted: Trace | Prediction | str | os.PathLike[str], measured: Trace | str | os.PathLike[str]
) -> Comparison:
    """Join two traces of the same plan, or files of them: seconds by phase, rank and action, and the error.

    Where other programs took cores of the machine meanwhile, the prediction is for those that were left, and
    for the speed at which these were seen to be.

    >>> import traincast as tc
    >>> arguments = {"pp": 2, "global_batch": 8, "seq_len": 1024}
    >>> fast = tc.simulate("gpt2", "dgx-a100", **arguments)
    >>> slow = tc.simulate("gpt2", "dgx-a100", slow_ranks={0: 2.0}, **arguments)
    >>> tc.compare(fast, slow).total.error_pct < -10
    True

    Raises:
        InputError: they are of different numbers of ranks, or have no rank in common.
    """
    predicted, measured = _trace(predicted), _trace(measured)
    if predicted.world_size != measured.world_size:
        raise InputError(
            f"predicted for {predicted.world_size} ranks, measured on {measured.world_size}: "
            "these are not traces of one plan"
        )
    common = set(predicted.ranks) & set(measured.ranks)
    if not common:
        raise InputError("the predicted and the measured trace have no rank in common to compare")
    speed = 1.0 / probe_ratio(predicted, measured)
    predicted, measured = _only(beside(predicted, measured), common), _only(measured, common)
    total = Row(name=STEP_TIME, predicted=predicted.step_time_s, measured=measured.step_time_s)
    return Comparison(
        total=total,
        phases=_join(phase_seconds(predicted), phase_seconds(measured), [p.key for p in PHASES]),
        ranks=_join(_busy_by_rank(predicted), _busy_by_rank(measured)),
        actions=_join(_by_action(predicted), _by_action(measured)),
        memory=_join(_memory(predicted), _memory(measured), both=True),
        load=load_of(measured),
        speed=speed,
    )


def _only(trace: Trace, ranks: set[int]) -> Trace:
    if ranks == set(trace.ranks):
        return trace
    return replace(trace, spans=trace.spans.take(np.isin(trace.spans.rank, sorted(ranks))))


def phase_seconds(trace: Trace) -> dict[str, float]:
    """Seconds of one step by phase key, averaged over the ranks; phases that do not occur are left out."""
    totals: dict[str, float] = defaultdict(float)
    busy: dict[int, float] = dict.fromkeys(trace.ranks, 0.0)
    for span, duration in _median_durations(trace):
        totals[phase_of(span.kind, span.stream).key] += duration
        if span.stream == COMPUTE:
            busy[span.rank] += duration
    totals[IDLE] = sum(max(trace.step_time_s - seconds, 0.0) for seconds in busy.values())
    ranks = max(len(busy), 1)
    return {p.key: totals[p.key] / ranks for p in PHASES if p.key in totals}


def _median_durations(trace: Trace) -> Iterable[tuple[Span, float]]:
    """One span for each (rank, stream, action), with the median over steps of its seconds in a step."""
    totals: dict[tuple[int, str, str, int], float] = {}
    counts: dict[tuple[int, str, str, int], int] = {}
    examples: dict[tuple[int, str, str], Span] = {}
    for span in trace.spans:
        key = (span.rank, span.stream, span.action, span.step)
        totals[key] = totals.get(key, 0.0) + (span.end - span.start)
        counts[key] = counts.get(key, 0) + 1
        examples.setdefault(key[:3], span)
    rounds: dict[tuple[int, int], int] = {}
    for (rank, _, _, step), count in counts.items():
        rounds[rank, step] = min(rounds.get((rank, step), count), count)
    by_step: dict[tuple[int, str, str], list[float]] = {}
    for key, total in totals.items():
        by_step.setdefault(key[:3], []).append(total / rounds[key[0], key[3]])
    return [
        (examples[key], median(values) if len(values) > 1 else values[0]) for key, values in by_step.items()
    ]


def _busy_by_rank(trace: Trace) -> dict[str, float]:
    busy: dict[int, float] = dict.fromkeys(trace.ranks, 0.0)
    for span, duration in _median_durations(trace):
        if span.stream == COMPUTE:
            busy[span.rank] += duration
    return {str(rank): seconds for rank, seconds in sorted(busy.items())}


def _by_action(trace: Trace) -> dict[str, float]:
    durations: dict[str, list[float]] = defaultdict(list)
    for span, duration in _median_durations(trace):
        durations[span.action].append(duration)
    return {action: sum(values) / len(values) for action, values in durations.items()}


def _memory(trace: Trace) -> dict[str, float]:
    return {str(rank): size for rank, size in sorted(trace.peak_memory_bytes.items())}


def _join(
    predicted: dict[str, float],
    measured: dict[str, float],
    order: Iterable[str] = (),
    *,
    both: bool = False,
) -> tuple[Row, ...]:
    """One row for each name, in ``order`` and then as they come; 0 where a side has none of it."""
    names = dict.fromkeys([*order, *predicted, *measured])
    return tuple(
        Row(name=name, predicted=predicted.get(name, 0.0), measured=measured.get(name, 0.0))
        for name in names
        if (name in predicted and name in measured) or (not both and (name in predicted or name in measured))
    )


_TOLERANCE = re.compile(r"\s*([a-z_]+)\s*>\s*(\d+(?:\.\d+)?)\s*%\s*\Z")


def check_tolerance(comparison: Comparison, expression: str) -> None:
    """Fail where the error, of either sign, is past a limit, as ``step_time>10%,backward>20%``.

    Names are ``step_time`` and the phases' keys.

    Raises:
        UsageError: the expression cannot be read, or names what was not compared.
        ToleranceError: a limit is passed; lists each.
    """
    rows = {row.name: row for row in (comparison.total, *comparison.phases)}
    passed = []
    for text in expression.split(","):
        name, limit = _parse_tolerance(text, rows)
        row = rows[name]
        error = row.error_pct if row.measured else (math.inf if row.predicted else 0.0)
        if error is not None and abs(error) > limit:
            passed.append(
                f"{name}: {formats.error(error) if math.isfinite(error) else 'nothing measured'} "
                f"(predicted {formats.seconds(row.predicted)}, measured {formats.seconds(row.measured)}), "
                f"tolerance {limit:g} %"
            )
    if passed:
        raise ToleranceError("\n".join(passed))


def _parse_tolerance(text: str, rows: dict[str, Row]) -> tuple[str, float]:
    match = _TOLERANCE.match(text)
    if match is None:
        raise UsageError(f"{text!r} is not a tolerance; write for example {STEP_TIME}>10%")
    if match[1] not in rows:
        known = ", ".join(rows)
        reason = "does not occur in these traces" if match[1] in BY_KEY else "is not compared"
        raise UsageError(f"{match[1]} {reason}; there are {known}")
    return match[1], float(match[2])


def print_comparison(comparison: Comparison, file: TextIO | None = None) -> None:
    """Print the tables, to standard output where no ``file`` is given."""
    for number, table in enumerate(comparison_tables(comparison)):
        if number:
            print(file=file)
        show(table, file)
    if comparison.load is not None and comparison.load.is_busy:
        print(f"\n{comparison.load}; the prediction is for what was left", file=file)
    if abs(comparison.speed - 1.0) >= NOTICED_SPEED:
        print(
            f"\nthe processor was {formats.factor(comparison.speed)} as fast as when it was calibrated;"
            " the prediction is for that speed",
            file=file,
        )


def comparison_tables(comparison: Comparison) -> list[Table]:
    """By phase with the total, by rank, and the actions that are furthest off."""

    def rows(of: Sequence[Row], names: Mapping[str, str]) -> tuple[tuple[str, ...], ...]:
        return tuple(
            (
                names.get(row.name, row.name),
                formats.seconds(row.predicted),
                formats.seconds(row.measured),
                formats.error(row.error_pct),
            )
            for row in of
        )

    numbers = ("predicted", "measured", "error")
    phases = {key: phase.label for key, phase in BY_KEY.items()}
    worst = sorted(comparison.actions, key=lambda row: -abs(row.predicted - row.measured))[:WORST_ACTIONS]
    ranks = {row.name: f"rank {row.name}" for row in comparison.ranks}
    return [
        Table(
            title="",
            columns=("phase", *numbers),
            rows=rows(comparison.phases, phases) + rows([comparison.total], {"step_time": "step time"}),
        ),
        Table(title="", columns=("compute of", *numbers), rows=rows(comparison.ranks, ranks)),
        Table(title="", columns=("furthest off", *numbers), rows=rows(worst, {})),
    ]
