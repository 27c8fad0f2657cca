"""Where sharded parameters are gathered, and how far ahead (FSDP, ZeRO).

The number of an UNSHARD is how many blocks of a pass ahead each of its blocks is gathered: 0 gathers when it
must, 1 while the block before computes. Without one all are gathered at once, as after an optimizer step.
"""

from __future__ import annotations

from ..action import Action, Actions, Kind
from ..schedules import Orders
from .lists import expand, is_pass, stage_ranks


def add_unsharding(actions: Orders, reshard_after_forward: bool, ahead: int) -> Orders:
    """Gather a stage's parameters before a pass that computes with them, drop them after it; or, kept, once.

    A weight gradient alone needs none. ``ahead`` is the number of blocks that are gathered before they are
    needed.
    """

    def around(action: Action) -> list[Action]:
        stages = {part.stage for part in action.passes if part.kind is not Kind.WEIGHT_GRADIENT}
        if not any(is_pass(part) for part in action.passes):
            return [action]
        gather = [Action(stage, Kind.UNSHARD, ahead=ahead) for stage in sorted(stages)]
        drop = [Action(stage, Kind.RESHARD) for stage in sorted(stages)]
        return [*gather, action, *drop]

    if reshard_after_forward:
        return expand(actions, around)
    return tuple(_unshard_once(own, ahead) for own in actions)


def _unshard_once(own: Actions, ahead: int) -> Actions:
    last = {part.stage: place for place, a in enumerate(own) for part in a.passes if is_pass(part)}
    seen: set[int] = set()
    lowered: list[Action] = []
    for place, action in enumerate(own):
        stages = {part.stage for part in action.passes if is_pass(part)}
        lowered += [Action(stage, Kind.UNSHARD, ahead=ahead) for stage in sorted(stages - seen)]
        seen |= stages
        lowered.append(action)
        lowered += [Action(stage, Kind.RESHARD) for stage in sorted(stages) if last[stage] == place]
    return tuple(lowered)


def add_gathering(actions: Orders) -> Orders:
    """Gather the parameters that each replica stepped a part of (ZeRO stages 1 and 2)."""
    rank_of = stage_ranks(actions)

    def around(action: Action) -> list[Action]:
        if action.kind is not Kind.STEP:
            return [action]
        held = sorted(stage for stage, rank in rank_of.items() if rank == action.rank)
        return [action, *(Action(stage, Kind.UNSHARD) for stage in held)]

    return expand(actions, around)
