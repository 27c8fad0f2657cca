"""Optimizer steps of workers."""

from __future__ import annotations

from ..action import BACKWARDS, Action, Actions, Kind
from ..plan import Stage
from ..schedules import Orders
from .lists import stage_ranks


def add_step(actions: Orders, stages: tuple[Stage, ...], every: int, *, tied: bool) -> Orders:
    """Step once a rank has made ``every`` backwards of each of its stages, its reductions included.

    The gradients of a tied embedding are summed before, where first and last stage lie on different ranks.
    """
    rank_of = stage_ranks(actions)
    last_stage = len(stages) - 1
    meet = tied and rank_of[0] != rank_of[last_stage]

    def stepped(rank: int, own: Actions) -> Actions:
        held = sum(1 for holder in rank_of.values() if holder == rank)
        ends = [
            Action(stage, Kind.REDUCE_TIED) for stage in (0, last_stage) if meet and rank_of[stage] == rank
        ]
        ends.append(Action.of(Kind.STEP, rank=rank))
        lowered: list[Action] = []
        backwards, due = 0, False
        for action in own:
            if due and action.kind not in (Kind.REDUCE_GRAD, Kind.SEND_B, Kind.RESHARD):
                lowered += ends
                due = False
            lowered.append(action)
            made = sum(part.kind in BACKWARDS for part in action.passes)
            backwards += made
            due = due or (made > 0 and backwards % (every * held) == 0)
        return (*lowered, *ends)

    return tuple(stepped(rank, own) for rank, own in enumerate(actions))
