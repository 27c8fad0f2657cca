"""ZB-1p: arranges itself, with up to ``ranks`` micro-batches in flight on each stage.

As many as 1F1B has on its first (Qi et al. 2024, section 3).
"""

from __future__ import annotations

from .automatic import arrange
from .descriptor import Orders, PipelineShape, Schedule


def zb_1p(shape: PipelineShape) -> Orders:
    """By rank."""
    return arrange(shape.ranks, shape.micro_batches, shape.pass_times, limit=shape.ranks)


SCHEDULE = Schedule(name="zb-1p", place=70, generate=zb_1p, splits_backward=True, arranged_by_times=True)
