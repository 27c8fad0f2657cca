"""Handcrafted zero-bubble orders: backward in two halves, of which the second fills the bubble.

Qi et al., "Zero Bubble Pipeline Parallelism" (ICLR 2024), section 2. Nobody waits for a weight gradient W,
so it is put off until there is nothing better to do. What a micro-batch keeps in memory is free after W.
"""

from __future__ import annotations

from collections.abc import Iterator

from ..action import Action, Actions, Kind


def delayed_weights(stage: int, ahead: int, late: int, micro_batches: int) -> Actions:
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
