"""Parameter servers: what workers exchange with them, and what each of them does."""

from __future__ import annotations

from itertools import chain

from ..action import Action, Actions, Kind
from ..schedules import Orders
from ..strategy import Strategy


def add_push_and_pull(actions: Orders) -> Orders:
    """Begin with the servers' parameters, end by sending them the gradients."""
    return tuple(
        (Action(stage, Kind.PULL), *own, Action(stage, Kind.PUSH)) for stage, own in enumerate(actions)
    )


def server_actions(strategy: Strategy) -> Orders:
    """What each server does in one step.

    A server that waits for all gradients steps once. Any other steps for each worker's gradients as they
    come, so only the order within one worker's three actions is meant.
    """
    at_once = strategy.protocol[0] in ("async", "stale")
    return tuple(_served(server, strategy.dp, at_once) for server in range(strategy.servers))


def _served(server: int, workers: int, at_once: bool) -> Actions:
    def each(*kinds: Kind) -> list[list[Action]]:
        return [[Action.of(kind, server=server, worker=w) for kind in kinds] for w in range(workers)]

    if at_once:
        return tuple(chain.from_iterable(each(Kind.PULL, Kind.PUSH, Kind.APPLY)))
    pulls, pushes = each(Kind.PULL), each(Kind.PUSH)
    return (*chain.from_iterable([*pulls, *pushes]), Action.of(Kind.APPLY, server=server))
