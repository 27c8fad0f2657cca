"""Messages between pipeline stages: activations forward, their gradients backward."""

from __future__ import annotations

from ..action import Action, Kind
from ..schedules import Orders
from .lists import expand, stage_ranks


def add_transfers(actions: Orders) -> Orders:
    """Pass activations to the next stage and gradients to the previous one, where another rank holds it."""
    rank_of = stage_ranks(actions)

    def elsewhere(stage: int, other: int) -> bool:
        return other in rank_of and rank_of[other] != rank_of[stage]

    def around(action: Action) -> list[Action]:
        before, after = [], []
        for part in action.passes:
            forward = part.kind is Kind.FORWARD
            if not forward and part.kind not in (Kind.BACKWARD, Kind.INPUT_GRADIENT):
                continue
            source, target = (-1, 1) if forward else (1, -1)
            receive, send = (Kind.RECV_F, Kind.SEND_F) if forward else (Kind.RECV_B, Kind.SEND_B)
            if elsewhere(part.stage, part.stage + source):
                before.append(Action(part.stage, receive, part.micro_batch))
            if elsewhere(part.stage, part.stage + target):
                after.append(Action(part.stage, send, part.micro_batch))
        return [*before, action, *after]

    return expand(actions, around)
