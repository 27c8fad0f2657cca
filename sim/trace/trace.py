"""What happened when: spans in seconds, predicted or measured, with peak memory and the run's metadata.

A span is busy time. A transfer or collective begins when its last member has arrived, so waiting is the
gap before it, in both kinds of trace alike, and busy + idle = makespan on every rank.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ..display import Shown, draw
from .span_columns import Span, Spans, joined

if TYPE_CHECKING:
    import pandas

__all__ = ["SCHEMA", "Span", "Spans", "Trace", "joined", "merge_traces"]

SCHEMA = "traincast.trace/1"


@dataclass(frozen=True, kw_only=True)
class Trace(Shown):
    """Spans sorted by (step, start, rank, stream), with what is known of the whole."""

    spans: Spans
    """Columns, and a sequence of `Span` for whoever looks at rows; any sequence of `Span` becomes one."""
    source: str
    """`predicted` or `measured`."""
    world_size: int
    step_times_s: tuple[float, ...]
    """Every measured step, or every sample of a prediction; their median is the step time."""
    peak_memory_bytes: dict[int, float] = field(default_factory=dict)
    """By rank."""
    metadata: dict[str, object] = field(default_factory=dict)
    """Plan label, versions, machine, `losses`, `staleness`: plain JSON values."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "spans", Spans.of(self.spans))

    @classmethod
    def of(cls, spans: Iterable[Span], **fields: object) -> Trace:
        """A trace with its spans put in order."""
        return cls(spans=Spans.of(spans).in_order(), **fields)  # type: ignore[arg-type]

    def __repr__(self) -> str:
        ranks, spans = f"{self.world_size:,} ranks", f"{len(self.spans):,} spans"
        return f"Trace({self.source}: {ranks}, {spans}, {self.step_time_s:.4g} s a step)"

    @property
    def step_time_s(self) -> float:
        """Median of the step times."""
        ordered = sorted(self.step_times_s)
        middle = len(ordered) // 2
        return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2

    def timeline(self, measured: Trace | None = None, *, title: str = "", wide: bool = False) -> Any:
        """Every rank a line, with ``measured`` below; a picture that notebooks show, and `save` writes.

        >>> import traincast as tc
        >>> tc.simulate("gpt2", "dgx-a100", pp=2, global_batch=8, seq_len=1024).timeline()
        Picture(9.0 × 2.6 inches)
        """
        return draw("timeline", self, measured, title=title, wide=wide)

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

    @property
    def deterministic_step_time_s(self) -> float:
        """The step time without drawn stragglers and jitter; of a trace that states none, the median."""
        stated = self.metadata.get("deterministic_step_time_s")
        return float(stated) if isinstance(stated, int | float) else self.step_time_s

    @property
    def lanes(self) -> int:
        """How many like ranks each rank of a folded trace stands for, itself included; else 1."""
        stated = self.metadata.get("lanes", 1)
        return stated if isinstance(stated, int) and stated > 0 else 1

    def of_step(self, step: int) -> Iterator[Span]:
        """The spans of one step."""
        return iter(self.spans.take(self.spans.step == step))

    @property
    def ranks(self) -> list[int]:
        return np.unique(self.spans.rank).tolist()

    def frame(self) -> pandas.DataFrame:
        """The spans as a pandas table: a row a span, the fields of `Span` as columns, seconds and bytes."""
        return self.spans.frame()


def merge_traces(traces: Sequence[Trace]) -> Trace:
    """Several runs of one plan as one trace: steps numbered on, peaks the highest, the machine's load the
    mean, other metadata of the first."""
    spans: list[Spans] = []
    times: list[float] = []
    peaks: dict[int, float] = {}
    for trace in traces:
        offset = len(times)
        spans.append(replace(trace.spans, step=trace.spans.step + offset))
        times += trace.step_times_s
        for rank, size in trace.peak_memory_bytes.items():
            peaks[rank] = max(size, peaks.get(rank, 0.0))
    first = traces[0]
    return Trace.of(
        joined(spans),
        source=first.source,
        world_size=first.world_size,
        step_times_s=tuple(times),
        peak_memory_bytes=peaks,
        metadata={**first.metadata, "runs": len(traces), **_mean_load(traces)},
    )


def _mean_load(traces: Sequence[Trace]) -> dict[str, object]:
    """The mean of each number that all of ``traces`` state under `load`."""
    stated = [trace.metadata.get("load") for trace in traces]
    loads = [load for load in stated if isinstance(load, dict)]
    if len(loads) < len(traces):
        return {}
    return {"load": {name: sum(load[name] for load in loads) / len(loads) for name in loads[0]}}
