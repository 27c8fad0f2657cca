"""ZB-2p: arranges itself, with up to 2 × ``ranks`` micro-batches in flight on each stage.

Qi et al. 2024, section 3.
"""

from __future__ import annotations

from .automatic import arrange
from .descriptor import Orders, PipelineShape, Schedule


def zb_2p(shape: PipelineShape) -> Orders:
    """By rank."""
    return arrange(shape.ranks, shape.micro_batches, shape.pass_times, limit=2 * shape.ranks)


SCHEDULE = Schedule(name="zb-2p", place=80, generate=zb_2p, splits_backward=True, arranged_by_times=True)
