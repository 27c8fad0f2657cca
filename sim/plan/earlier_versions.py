"""Actions as plan files of earlier versions have them, in today's words.

They left to readers how far ahead parameters are gathered and where activations are offloaded, and named no
server in what servers do. Workers that average local steps through servers made those steps unsaid.
"""

from __future__ import annotations

from dataclasses import replace

from .action import BACKWARDS, Action, Actions, Kind
from .passes.offload import add_offload
from .schedules import Orders
from .sharding import gathers_parameters
from .strategy import Strategy


def worker_actions(lists: Orders, strategy: Strategy) -> Orders:
    """The lists with what the strategy says of prefetch and offload written into them where it is missing."""
    if gathers_parameters(strategy):
        lists = tuple(tuple(_gathered(action, strategy.prefetch) for action in own) for own in lists)
    kinds = {action.kind for own in lists for action in own}
    if strategy.offloads_activations and kinds.isdisjoint((Kind.OFFLOAD, Kind.FETCH)):
        lists = add_offload(lists)
    if strategy.servers and strategy.protocol[0] == "local" and Kind.STEP not in kinds:
        lists = tuple(_stepped(own, rank, strategy.protocol[1]) for rank, own in enumerate(lists))
    return lists


def _stepped(own: Actions, rank: int, steps: int) -> Actions:
    """With a STEP after each of ``steps`` equal runs of backwards."""
    backwards = sum(action.kind in BACKWARDS for action in own)
    every, made, found = max(1, backwards // max(1, steps)), 0, []
    for action in own:
        found.append(action)
        if action.kind in BACKWARDS:
            made += 1
            if made % every == 0:
                found.append(Action.of(Kind.STEP, rank=rank))
    return tuple(found)


def _gathered(action: Action, ahead: int) -> Action:
    is_plain = action.kind is Kind.UNSHARD and action.ahead < 0
    return replace(action, ahead=ahead) if is_plain else action


def server_actions(lists: Orders) -> Orders:
    """The lists with each server's number, and APPLY for its `STEP`."""
    return tuple(_named(own, number) for number, own in enumerate(lists))


def _named(actions: Actions, server: int) -> Actions:
    if not any(action.kind is Kind.STEP for action in actions):
        return actions
    worker, named = -1, []
    at_once = [action.kind for action in actions].count(Kind.STEP) > 1
    for action in actions:
        if action.kind is Kind.STEP:
            action = Action.of(Kind.APPLY, server=server, worker=worker if at_once else -1)
        elif action.worker >= 0:
            worker = action.worker
            action = replace(action, server=server)
        named.append(action)
    return tuple(named)
