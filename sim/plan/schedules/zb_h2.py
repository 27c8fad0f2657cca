"""ZB-H2: no bubble where F = B = W, with up to 2 × ``ranks`` - 1 micro-batches in flight.

The bubble is (p - 1)(F + B - 2W) (Qi et al. 2024, section 2.2): twice as many forwards ahead, and weight
gradients put off by twice as many micro-batches, as in zb-h1.
"""

from __future__ import annotations

from .delayed_weights import delayed_weights
from .descriptor import Orders, PipelineShape, Schedule


def zb_h2(shape: PipelineShape) -> Orders:
    """By rank."""
    return tuple(
        delayed_weights(stage, 2 * (shape.ranks - stage - 1), 2 * stage, shape.micro_batches)
        for stage in range(shape.ranks)
    )


SCHEDULE = Schedule(name="zb-h2", place=60, generate=zb_h2, splits_backward=True)
