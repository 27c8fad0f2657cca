"""What runs say of a calibration: factors on what it predicts, by phase, and what these are worth elsewhere.

A phase's factor is what runs took over what was predicted for them next to the same load, the median over
runs that spent a noticeable part of their step on it. Whether factors help is seen on families of plans that
they were not made from (leave one family out).
"""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..hardware.cluster import Cluster
from ..network.transport import SEND_RECV, SHIFT
from ..plan.action import Kind
from ..plan.family import family
from ..plan.plan import Plan
from ..plan.strategy import Strategy
from ..trace.load import beside
from ..trace.trace import Trace

COMPUTE, OPTIMIZER = "compute", "optimizer"
NOTICED = 0.02
"""Part of a step from which on a phase counts: less is noise."""
LEAST, MOST = 0.5, 2.0
"""Factors beyond which something else is wrong than the calibration."""

Predict = Callable[[Plan, Cluster], Trace]


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One plan as it was measured."""

    plan: Plan
    measured: Trace

    @property
    def family(self) -> str:
        """What kind of plan it is, whatever its micro-batch."""
        return family(self.plan.strategy)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """What factors are worth on one run that they were not made from."""

    label: str
    family: str
    measured_s: float
    before_pct: float
    """Signed error of the step time as calibrated."""
    after_pct: float
    """The same with the factors of all other families."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Correction:
    """Factors from runs, and what they are worth."""

    factors: Mapping[str, float]
    """By phase: `compute`, `optimizer`, or an operation of ranks."""
    shown: tuple[Shown, ...]

    @property
    def before_pct(self) -> float:
        """Median absolute error as calibrated."""
        return statistics.median(abs(one.before_pct) for one in self.shown)

    @property
    def after_pct(self) -> float:
        """The same with factors that did not see the run's family."""
        return statistics.median(abs(one.after_pct) for one in self.shown)


def correction(runs: Sequence[Run], cluster: Cluster, predict: Predict) -> Correction:
    """The factors of all ``runs``, and what those of other families do for each."""
    plain = replace(cluster, corrections={})
    predicted = [predict(run.plan, plain) for run in runs]
    ratios = [phase_ratios(run, trace) for run, trace in zip(runs, predicted, strict=True)]
    shown = []
    for run, before in zip(runs, predicted, strict=True):
        others = [own for one, own in zip(runs, ratios, strict=True) if one.family != run.family]
        after = predict(run.plan, replace(cluster, corrections=factors_of(others)))
        shown.append(
            Shown(
                label=run.plan.strategy.label,
                family=run.family,
                measured_s=run.measured.step_time_s,
                before_pct=_error_pct(before, run.measured),
                after_pct=_error_pct(after, run.measured),
            )
        )
    return Correction(factors=factors_of(ratios), shown=tuple(shown))


def factors_of(ratios: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The median of each phase's ratios, in the logarithm, within `LEAST` and `MOST`."""
    found: dict[str, list[float]] = defaultdict(list)
    for own in ratios:
        for phase, ratio in own.items():
            found[phase].append(math.log(ratio))
    return {
        phase: min(MOST, max(LEAST, math.exp(statistics.median(logs))))
        for phase, logs in sorted(found.items())
    }


def phase_ratios(run: Run, predicted: Trace) -> dict[str, float]:
    """By phase that takes a noticeable part of the step on both sides: measured over predicted seconds."""
    beside_load = beside(predicted, run.measured)
    expected = phase_seconds(beside_load, run.plan.strategy)
    found = phase_seconds(run.measured, run.plan.strategy)
    least = NOTICED * run.measured.step_time_s
    return {
        phase: seconds / expected[phase]
        for phase, seconds in found.items()
        if seconds >= least and expected.get(phase, 0.0) >= least
    }


def phase_seconds(trace: Trace, strategy: Strategy) -> dict[str, float]:
    """Busy seconds of one step by phase, the mean over ranks that show it; of several steps the median."""
    spans = trace.spans
    table = np.array(
        [[_phase(kind, stream, strategy) for stream in spans.streams] for kind in spans.kinds], dtype=object
    ).reshape(len(spans.kinds), len(spans.streams))
    phases = table[spans.token_code, spans.stream_code]
    seconds: dict[str, float] = {}
    for phase in sorted({phase for phase in phases if phase}):
        own = phases == phase
        steps = np.unique(spans.step[own])
        totals = [float(spans.duration[own & (spans.step == step)].sum()) for step in steps]
        seconds[phase] = statistics.median(totals) / len(np.unique(spans.rank[own]))
    return seconds


_PASSES = (Kind.FORWARD, Kind.BACKWARD, Kind.INPUT_GRADIENT, Kind.WEIGHT_GRADIENT, Kind.OVERLAP)


def _phase(kind: str, stream: str, strategy: Strategy) -> str:
    """What a span counts as; empty where no factor is for it."""
    if stream == "compute":
        if kind in (Kind.STEP, Kind.APPLY):
            return OPTIMIZER
        return COMPUTE if kind in _PASSES else ""
    if kind in (Kind.SEND_F, Kind.SEND_B):
        return SEND_RECV
    if kind == Kind.UNSHARD:
        return "all_gather"
    if kind == Kind.REDUCE_GRAD:
        return "all_reduce" if strategy.sharding == "ddp" else "reduce_scatter"
    if kind == Kind.AVERAGE:
        return "all_reduce"
    return _exchange(stream, strategy)


def _exchange(stream: str, strategy: Strategy) -> str:
    """The operation of what passes through layers communicate, where it is one."""
    if stream == "tp":
        return "" if strategy.sequence_parallel else "all_reduce"
    if stream == "cp":
        return {"ring": SHIFT}.get(strategy.cp_exchange, strategy.cp_exchange)
    return "all_to_all" if stream == "ep" else ""


def _error_pct(predicted: Trace, measured: Trace) -> float:
    expected = beside(predicted, measured).deterministic_step_time_s
    return 100.0 * (expected / measured.step_time_s - 1.0)
