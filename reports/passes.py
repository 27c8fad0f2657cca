"""A pipeline's passes as text: a line for every rank, to scale."""

from __future__ import annotations

from ..sim.trace.trace import Span, Trace

IDLE = "·"


def drawing(trace: Trace, columns: int, ranks: int) -> list[str]:
    """Lines that show every pass of ``trace``, or none where ``columns`` or ``ranks`` are too few.

    A pass is its letter and micro-batch, as `F3`, followed by `-` until it ends; later stages of a rank
    have small letters.
    """
    shortest = min((span.duration for span in trace.spans if span.duration > 0), default=0.0)
    if not shortest or len(trace.ranks) > ranks:
        return []
    cell = shortest / (1 + len(str(max(span.micro_batch for span in trace.spans))))
    width = max(span.end for span in trace.spans) / cell
    if width > columns:
        return []
    return [_line(trace, rank, cell, round(width)) for rank in trace.ranks]


def _line(trace: Trace, rank: int, cell: float, width: int) -> str:
    text = [IDLE] * width
    spans = [span for span in trace.spans if span.rank == rank]
    first = min(span.stage for span in spans)
    for span in spans:
        left, right = round(span.start / cell), round(span.end / cell)
        text[left:right] = _label(span, span.stage == first).ljust(right - left, "-")[: right - left]
    return f"rank {rank:>2} {''.join(text)}"


def _label(span: Span, first: bool) -> str:
    return f"{span.kind if first else span.kind.lower()}{span.micro_batch}"
