"""Sums of gradients over the replicas, and averages of parameters."""

from __future__ import annotations

from ..action import BACKWARDS, Action, Actions, Kind
from ..plan import Stage
from ..schedules import Orders


def add_gradient_reduction(actions: Orders, stages: tuple[Stage, ...], every: int) -> Orders:
    """Reduce every bucket of a stage after each ``every``-th of its backwards."""
    return tuple(_reduced(own, stages, every) for own in actions)


def _reduced(own: Actions, stages: tuple[Stage, ...], every: int) -> Actions:
    counts: dict[int, int] = {}
    lowered: list[Action] = []
    due: list[Action] = []
    for place, action in enumerate(own):
        lowered.append(action)
        for part in action.passes:
            if part.kind in BACKWARDS:
                counts[part.stage] = counts.get(part.stage, 0) + 1
                if counts[part.stage] % every == 0:
                    buckets = range(len(stages[part.stage].buckets))
                    due += [Action(part.stage, Kind.REDUCE_GRAD, bucket=i) for i in buckets]
        # The stage before waits for its message, so that goes out first.
        if due and own[place + 1 : place + 2] and own[place + 1].kind is Kind.SEND_B:
            continue
        lowered += due
        due = []
    return tuple(lowered)


def add_averaging(actions: Orders) -> Orders:
    """Average the parameters of every rank at the end (local SGD)."""
    return tuple((*own, Action.of(Kind.AVERAGE, rank=rank)) for rank, own in enumerate(actions))
