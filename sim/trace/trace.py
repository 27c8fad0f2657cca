"""What happened when: spans in seconds, predicted or measured, with peak memory and the run's metadata.

A span is busy time. A transfer or collective begins when its last member has arrived, so waiting is the
gap before it, in both kinds of trace alike, and busy + idle = makespan on every rank.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

SCHEMA = "traincast.trace/1"


class Span(NamedTuple):
    """One row of a trace."""

    rank: int
    stream: str
    """`compute`, or a communication dimension: `pp`, `dp`, `tp`, `ps`."""
    action: str
    """Text form of the plan's action, as `2F0`."""
    stage: int
    micro_batch: int
    start: float
    """seconds since the step began"""
    end: float
    bytes: float = 0.0
    flops: float = 0.0
    step: int = 0
    """Which of the steps a run measured; 0 in a prediction."""

    @property
    def duration(self) -> float:
        return self.end - self.start

    @property
    def kind(self) -> str:
        """The action's token without numbers, as `SEND_F`; of an overlap, `OVERLAP_F_B`."""
        return self.action.rpartition(")")[2].strip("0123456789")


@dataclass(frozen=True, kw_only=True)
class Trace:
    """Spans sorted by (step, start, rank, stream), with what is known of the whole."""

    spans: tuple[Span, ...]
    source: str
    """`predicted` or `measured`."""
    world_size: int
    step_times_s: tuple[float, ...]
    """Every measured step, or every sample of a prediction; their median is the step time."""
    peak_memory_bytes: dict[int, float] = field(default_factory=dict)
    """By rank."""
    metadata: dict[str, object] = field(default_factory=dict)
    """Plan label, versions, machine, `losses`, `staleness`: plain JSON values."""

    @classmethod
    def of(cls, spans: Iterable[Span], **fields: object) -> Trace:
        """A trace with its spans put in order."""
        ordered = tuple(sorted(spans, key=lambda s: (s.step, s.start, s.rank, s.stream, s.action)))
        return cls(spans=ordered, **fields)  # type: ignore[arg-type]

    @property
    def step_time_s(self) -> float:
        """Median of the step times."""
        ordered = sorted(self.step_times_s)
        middle = len(ordered) // 2
        return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2

    def quantile(self, q: float) -> float:
        """The step time below which a fraction ``q`` of the steps lie (linear interpolation)."""
        ordered = sorted(self.step_times_s)
        position = q * (len(ordered) - 1)
        low = int(position)
        high = min(low + 1, len(ordered) - 1)
        return ordered[low] + (ordered[high] - ordered[low]) * (position - low)

    @property
    def quantiles(self) -> dict[str, float]:
        """The step time's p5, p50 and p95, as every result states it."""
        return {"p5": self.quantile(0.05), "p50": self.quantile(0.5), "p95": self.quantile(0.95)}

    def of_step(self, step: int) -> Iterator[Span]:
        """The spans of one step."""
        return (span for span in self.spans if span.step == step)

    @property
    def ranks(self) -> list[int]:
        return sorted({span.rank for span in self.spans})


def merge_traces(traces: Sequence[Trace]) -> Trace:
    """Several runs of one plan as one trace: steps numbered on, peaks the highest, metadata of the first."""
    spans: list[Span] = []
    times: list[float] = []
    peaks: dict[int, float] = {}
    for trace in traces:
        offset = len(times)
        spans += [span._replace(step=span.step + offset) for span in trace.spans]
        times += trace.step_times_s
        for rank, size in trace.peak_memory_bytes.items():
            peaks[rank] = max(size, peaks.get(rank, 0.0))
    first = traces[0]
    return Trace.of(
        spans,
        source=first.source,
        world_size=first.world_size,
        step_times_s=tuple(times),
        peak_memory_bytes=peaks,
        metadata={**first.metadata, "runs": len(traces)},
    )
