"""Parameter servers: what workers exchange with them, and what each of them does.

A bucket is pushed once its gradients are whole, which is while the backward before its PUSH still runs, as a
REDUCE_GRAD is. Servers step it, and send its parameters, whatever becomes of other buckets (Jiang et al.
2020, BytePS, section 4).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain, product

from ..action import Action, Actions, Kind
from ..plan import Portion
from ..schedules import Orders
from ..strategy import Strategy


def add_push_and_pull(actions: Orders, buckets: int = 0) -> Orders:
    """Begin with the servers' parameters, end by sending them the gradients: all of them, or by bucket."""

    def each(kind: Kind, stage: int) -> list[Action]:
        numbers = range(buckets) if buckets else (-1,)
        return [Action.of(kind, stage=stage, bucket=bucket) for bucket in numbers]

    return tuple(
        (*each(Kind.PULL, stage), *own, *each(Kind.PUSH, stage)) for stage, own in enumerate(actions)
    )


def server_actions(strategy: Strategy, portions: Sequence[Portion]) -> Orders:
    """What each server does in one step with those of ``portions`` that it holds.

    For a server that waits for all gradients of a bucket before it steps, only the order within a bucket is
    meant. Any other steps for each worker's gradients as they come, so only the order within one worker's
    three actions of a bucket is.
    """
    at_once = strategy.protocol[0] in ("async", "stale")
    return tuple(
        _served(server, [p.bucket for p in portions if p.server == server], strategy.dp, at_once)
        for server in range(strategy.servers)
    )


def _served(server: int, buckets: Sequence[int], workers: int, at_once: bool) -> Actions:
    def one(kind: Kind, bucket: int, worker: int = -1) -> Action:
        return Action.of(kind, server=server, worker=worker, bucket=bucket)

    if at_once:
        kinds, pairs = (Kind.PULL, Kind.PUSH, Kind.APPLY), product(range(workers), buckets)
        return tuple(one(kind, bucket, worker) for worker, bucket in pairs for kind in kinds)
    return tuple(
        chain.from_iterable(
            [
                *(one(kind, bucket, worker) for kind in (Kind.PULL, Kind.PUSH) for worker in range(workers)),
                one(Kind.APPLY, bucket),
            ]
            for bucket in buckets
        )
    )
