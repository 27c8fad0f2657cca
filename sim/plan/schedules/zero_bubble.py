"""Handcrafted zero-bubble schedules: backward in two halves, of which the second fills the bubble.

Qi et al., "Zero Bubble Pipeline Parallelism" (ICLR 2024), section 2. Nobody waits for a weight gradient W,
so it is put off until there is nothing better to do. What a micro-batch keeps in memory is free after W.
"""

from __future__ import annotations

from collections.abc import Iterator

from ..action import Action, Actions, Kind


def zb_h1(stages: int, micro_batches: int) -> tuple[Actions, ...]:
    """As much memory as 1F1B: every stage has up to ``stages`` micro-batches in flight (section 2.1).

    The bubble is (p - 1)(F + B - W). The order is that of torch's ScheduleInterleavedZeroBubble with one
    stage a rank.
    """
    return tuple(_delayed(stage, stages - stage - 1, stage, micro_batches) for stage in range(stages))


def zb_h2(stages: int, micro_batches: int) -> tuple[Actions, ...]:
    """No bubble where F = B = W, with up to 2 × ``stages`` - 1 micro-batches in flight (section 2.2).

    The bubble is (p - 1)(F + B - 2W): twice as many forwards ahead, and weight gradients put off by
    twice as many micro-batches, as in zb-h1.
    """
    return tuple(
        _delayed(stage, 2 * (stages - stage - 1), 2 * stage, micro_batches) for stage in range(stages)
    )


def _delayed(stage: int, ahead: int, late: int, micro_batches: int) -> Actions:
    """``ahead`` forwards, then F I in turn, from the ``late``-th on with W behind."""
    return tuple(_passes(stage, min(ahead, micro_batches), late, micro_batches))


def _passes(stage: int, ahead: int, late: int, micro_batches: int) -> Iterator[Action]:
    for i in range(ahead):
        yield Action(stage, Kind.FORWARD, i)
    for i in range(micro_batches):
        if ahead + i < micro_batches:
            yield Action(stage, Kind.FORWARD, ahead + i)
        yield Action(stage, Kind.INPUT_GRADIENT, i)
        if i >= late:
            yield Action(stage, Kind.WEIGHT_GRADIENT, i - late)
    for i in range(max(0, micro_batches - late), micro_batches):
        yield Action(stage, Kind.WEIGHT_GRADIENT, i)
