"""Which spans of a trace a picture shows: one step, not too many ranks, not too many bars.

A picture of a hundred ranks is grey; a page with a million bars does not open. What is left out is said.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..sim.trace.trace import Span, Trace
from . import formats

MAX_RANKS = 16
MAX_SPANS = 4000
ASYNC_START = 0.3
"""Share of an asynchronous prediction that is skipped while its workers fall out of step."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """What is shown of a trace."""

    spans: tuple[Span, ...]
    """Their times count from the left edge."""
    ranks: tuple[int, ...]
    length_s: float
    """From the left to the right edge."""
    notes: tuple[str, ...]
    """What was left out, for the caption."""


def picture(
    trace: Trace,
    max_spans: int = MAX_SPANS,
    ranks: Sequence[int] | None = None,
    length_s: float | None = None,
) -> Picture:
    """Choose from ``trace``: its most typical step, of ``ranks`` where given, for ``length_s`` at most.

    Without ``length_s`` that is the whole step, or two rounds of an asynchronous prediction, or the
    beginning that holds ``max_spans``.
    """
    notes: list[str] = []
    spans = _from_the_middle(_typical_step(trace, notes), trace, notes)
    shown = list(ranks) if ranks is not None else _some_ranks(spans, notes)
    members = set(shown)
    spans = [span for span in spans if span.rank in members]
    whole = max(trace.step_time_s, *(span.end for span in spans)) if spans else trace.step_time_s
    length = min(whole if length_s is None else length_s, _affordable_length(spans, max_spans, whole))
    if length < whole:
        notes.append(f"the first {formats.seconds(length)} of {formats.seconds(whole)}")
        spans = [span._replace(end=min(span.end, length)) for span in spans if span.start < length]
    return Picture(spans=tuple(spans[:max_spans]), ranks=tuple(shown), length_s=length, notes=tuple(notes))


def _typical_step(trace: Trace, notes: list[str]) -> list[Span]:
    """The step whose time is nearest to the median."""
    steps = sorted({span.step for span in trace.spans})
    if len(steps) < 2:
        return list(trace.spans)
    times = dict(enumerate(trace.step_times_s))
    typical = min(steps, key=lambda step: abs(times.get(step, float("inf")) - trace.step_time_s))
    notes.append(f"step {typical} of {len(steps)}, the nearest to the median")
    return list(trace.of_step(typical))


def _from_the_middle(spans: list[Span], trace: Trace, notes: list[str]) -> list[Span]:
    """Two rounds of an asynchronous prediction, which plays many as one step; all of any other."""
    end = max((span.end for span in spans), default=0.0)
    step = trace.step_time_s
    repeated = len({(s.rank, s.stream, s.action) for s in spans}) < len(spans) / 1.5
    if trace.source != "predicted" or not repeated or end <= 4 * step:
        return spans
    start, stop = end * ASYNC_START, end * ASYNC_START + 2 * step
    notes.append(f"2 of {end / step:.0f} step times, from the middle")
    return [
        span._replace(start=max(span.start, start) - start, end=min(span.end, stop) - start)
        for span in spans
        if span.end > start and span.start < stop
    ]


def _affordable_length(spans: list[Span], max_spans: int, whole: float) -> float:
    """Seconds until which no more than ``max_spans`` spans have begun."""
    if len(spans) <= max_spans:
        return whole
    return sorted(span.start for span in spans)[max_spans]


def _some_ranks(spans: list[Span], notes: list[str]) -> list[int]:
    """All ranks, or some at even distances with the first and the last."""
    ranks = sorted({span.rank for span in spans})
    if len(ranks) <= MAX_RANKS:
        return ranks
    notes.append(f"{MAX_RANKS} of {len(ranks):,} ranks")
    return [ranks[round(i * (len(ranks) - 1) / (MAX_RANKS - 1))] for i in range(MAX_RANKS)]
