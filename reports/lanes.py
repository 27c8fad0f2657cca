"""Which spans of a trace a picture shows: one step, not too many ranks, not too many bars.

A picture of a hundred ranks is grey; a page with a million bars does not open. What is left out is said.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..sim.trace import Span, Trace

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
    notes: tuple[str, ...]
    """What was left out, for the caption."""


def picture(
    trace: Trace,
    max_spans: int = MAX_SPANS,
    ranks: Sequence[int] | None = None,
    length_s: float | None = None,
) -> Picture:
    """Choose from ``trace``: its most typical step, of ``ranks`` where given, for ``length_s`` at most.

    Without ``length_s`` that is the whole step, or two rounds of an asynchronous prediction.
    """
    notes: list[str] = []
    spans = _typical_step(trace, notes)
    spans = _window(spans, trace, length_s, notes)
    shown = list(ranks) if ranks is not None else _some_ranks(spans, max_spans, notes)
    spans = [span for span in spans if span.rank in set(shown)]
    if len(spans) > max_spans:
        notes.append(f"the first {max_spans:,} of {len(spans):,} spans")
        spans = spans[:max_spans]
    return Picture(spans=tuple(spans), ranks=tuple(shown), notes=tuple(notes))


def _typical_step(trace: Trace, notes: list[str]) -> list[Span]:
    """The step whose time is nearest to the median."""
    steps = sorted({span.step for span in trace.spans})
    if len(steps) < 2:
        return list(trace.spans)
    times = dict(enumerate(trace.step_times_s))
    typical = min(steps, key=lambda step: abs(times.get(step, float("inf")) - trace.step_time_s))
    notes.append(f"step {typical} of {len(steps)}, the nearest to the median")
    return list(trace.of_step(typical))


def _window(spans: list[Span], trace: Trace, length_s: float | None, notes: list[str]) -> list[Span]:
    end = max((span.end for span in spans), default=0.0)
    repeated = len({(s.rank, s.stream, s.action, s.step) for s in spans}) < len(spans) / 1.5
    start = 0.0
    if repeated and trace.source == "predicted" and end > 4 * trace.step_time_s:
        start, length_s = end * ASYNC_START, length_s or 2 * trace.step_time_s
        notes.append(f"{length_s / trace.step_time_s:.1f} of {end / trace.step_time_s:.0f} step times")
    if length_s is None:
        return spans
    return [
        span._replace(start=max(span.start - start, 0.0), end=min(span.end - start, length_s))
        for span in spans
        if span.end > start and span.start < start + length_s
    ]


def _some_ranks(spans: list[Span], max_spans: int, notes: list[str]) -> list[int]:
    """All ranks, or some at even distances with the first and the last."""
    ranks = sorted({span.rank for span in spans})
    if not ranks:
        return []
    count = min(len(ranks), MAX_RANKS, max(2, max_spans * len(ranks) // max(len(spans), 1)))
    if count == len(ranks):
        return ranks
    notes.append(f"{count} of {len(ranks):,} ranks")
    return [ranks[round(i * (len(ranks) - 1) / (count - 1))] for i in range(count)]
