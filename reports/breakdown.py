"""Where a step's time goes, as parts that add up: what each phase costs that nothing before it hides.

Compute comes first, communication only where no compute overlaps with it, and what is left is idle. So a
part is what the step would lose at most if that phase cost nothing.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from ..sim.trace.spans import Interval, merge, total
from ..sim.trace.trace import Span, Trace
from .palette import COMPUTE_PHASES, IDLE, PHASES, phase_of

_ORDER = [phase.key for phase in PHASES if phase.key in COMPUTE_PHASES]
_ORDER += [phase.key for phase in PHASES if phase.key not in _ORDER and phase.key != IDLE]


def exposed_seconds(trace: Trace) -> dict[str, float]:
    """Seconds of one step by phase key, averaged over workers and steps; they add up to the step time."""
    lanes: dict[tuple[int, int], list[Span]] = defaultdict(list)
    lengths: dict[int, float] = defaultdict(float)
    workers = {
        span.rank for span in trace.spans if phase_of(span.kind, span.stream).key in ("forward", "backward")
    }
    for span in trace.spans:
        lengths[span.step] = max(lengths[span.step], span.end)
        if span.rank in workers or not workers:  # servers wait by design
            lanes[span.step, span.rank].append(span)
    totals: dict[str, float] = defaultdict(float)
    for (step, _), spans in lanes.items():
        for key, share in _shares(spans, lengths[step]).items():
            totals[key] += share
    scale = trace.step_time_s / len(lanes) if lanes else 0.0
    return {phase.key: totals[phase.key] * scale for phase in PHASES if phase.key in totals}


def _shares(spans: Iterable[Span], length: float) -> dict[str, float]:
    """Shares of ``length`` on one rank, each phase counting only what those before it leave uncovered."""
    by_phase: dict[str, list[Interval]] = defaultdict(list)
    for span in spans:
        by_phase[phase_of(span.kind, span.stream).key].append((span.start, span.end))
    shares: dict[str, float] = {}
    covered: list[Interval] = []
    before = 0.0
    for key in _ORDER:
        if key in by_phase and length > 0:
            covered = merge([*covered, *by_phase[key]])
            after = total(covered)
            shares[key] = (after - before) / length
            before = after
    shares[IDLE] = max(0.0, 1.0 - sum(shares.values()))
    return shares
