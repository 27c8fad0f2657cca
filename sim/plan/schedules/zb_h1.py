"""ZB-H1: as much memory as 1F1B, every stage has up to ``ranks`` micro-batches in flight.

The bubble is (p - 1)(F + B - W) (Qi et al. 2024, section 2.1). The order is that of torch's
ScheduleInterleavedZeroBubble with one stage a rank.
"""

from __future__ import annotations

from .delayed_weights import delayed_weights
from .descriptor import Orders, PipelineShape, Schedule


def zb_h1(shape: PipelineShape) -> Orders:
    """By rank."""
    return tuple(
        delayed_weights(stage, shape.ranks - stage - 1, stage, shape.micro_batches)
        for stage in range(shape.ranks)
    )


SCHEDULE = Schedule(name="zb-h1", place=50, generate=zb_h1, splits_backward=True, searched_with=(1,))
