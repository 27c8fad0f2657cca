"""When each forward and backward of one pipeline rank is at work in the predicted step."""

from __future__ import annotations

from ..hardware.cluster import Cluster
from ..memory.pass_timeline import PASSES
from ..plan.plan import Plan
from ..trace.streams import Stream
from .simulate import simulate


def pass_spans(plan: Plan, cluster: Cluster, pipeline_rank: int) -> tuple[tuple[float, float], ...]:
    """(start, end) in seconds of each pass of `moments.walk`, in order; empty where no trace tells.

    What communicates in the middle of a pass belongs to it. The forward and the backward of an overlap have
    the same times.
    """
    trace = simulate(plan, cluster, samples=0)
    times: dict[str, tuple[float, float]] = {}
    workers = (rank for rank in trace.ranks if not plan.is_server(rank))
    rank = next((one for one in workers if plan.coordinates(one)[0] == pipeline_rank), -1)
    spans = trace.spans
    for span in spans.take((spans.rank == rank) & spans.on(Stream.COMPUTE)):
        start, end = times.get(span.action, (span.start, span.end))
        times[span.action] = min(start, span.start), max(end, span.end)
    found = [
        times.get(str(action))
        for action in plan.actions[pipeline_rank]
        for part in action.passes
        if part.kind in PASSES
    ]
    return tuple(span for span in found if span is not None) if None not in found else ()
