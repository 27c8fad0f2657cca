"""From Job and Strategy to Plan: partition the layers, generate the schedule, lower it by small passes.

Each pass takes the action lists of all stages and returns them with one concern added.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

from .errors import InputError
from .job import GRADIENT_BYTES, Job
from .model import Model
from .plan import Action, Actions, Kind, Plan, Stage
from .schedules import schedule
from .strategy import DDP_BUCKET_BYTES, Strategy

DDP_FIRST_BUCKET_BYTES = 2**20
"""torch.distributed._DEFAULT_FIRST_BUCKET_BYTES: where its bucket size is the default, DDP's first bucket is
small, to start reducing early."""


def make_plan(job: Job, strategy: Strategy, cluster: dict[str, object] | None = None) -> Plan:
    """Lower ``strategy`` for ``job``. Raises InputError listing every broken rule."""
    faults = [*job.faults(), *strategy.faults(job)]
    if faults:
        raise InputError(faults)
    stages = partition(job, strategy)
    actions = _pipeline(strategy.schedule, strategy.pp, strategy.micro_batches(job))
    if strategy.gradient_exchange == "parameter_server":
        actions = add_push_and_pull(actions)
    else:
        actions = add_gradient_reduction(actions, stages, strategy.dp)
        actions = add_tied_reduction(actions, job.model)
        actions = add_step(actions)
    return Plan(
        job=job,
        strategy=strategy,
        stages=stages,
        actions=actions,
        server_actions=server_actions(strategy),
        shards=shard(job.model, strategy.servers),
        cluster=cluster or {},
    )


@lru_cache(maxsize=128)
def _pipeline(name: str, stages: int, micro_batches: int) -> tuple[Actions, ...]:
    """A schedule with its transfers; kept, since a search asks for the same one again and again."""
    return add_transfers(schedule(name, stages, micro_batches))


def partition(job: Job, strategy: Strategy) -> tuple[Stage, ...]:
    """Blocks spread evenly over the stages; embedding on the first, head on the last.

    Blocks left over go to the middle stages first, since the ends have the embedding and the head.
    """
    blocks, pp = job.model.decoder.layers, strategy.pp
    counts = [blocks // pp] * pp
    middle_first = sorted(range(pp), key=lambda s: (s in (0, pp - 1), s == pp - 1, s))
    for stage in middle_first[: blocks % pp]:
        counts[stage] += 1
    ends = [1 + sum(counts[: s + 1]) for s in range(pp)]
    ends[-1] += 1
    starts = [0, *ends[:-1]]
    return tuple(
        Stage(index=s, first_layer=first, end_layer=end, buckets=_buckets(job, strategy, range(first, end)))
        for s, (first, end) in enumerate(zip(starts, ends, strict=True))
    )


def _buckets(job: Job, strategy: Strategy, layers: range) -> tuple[tuple[int, ...], ...]:
    """Whole layers from the last to the first, a bucket closed once it holds its limit, as DDP does."""
    if strategy.dp == 1 or strategy.gradient_exchange != "allreduce":
        return ()
    buckets: list[tuple[int, ...]] = []
    current: list[int] = []
    default = strategy.bucket_bytes == DDP_BUCKET_BYTES
    size, limit = 0.0, DDP_FIRST_BUCKET_BYTES if default else strategy.bucket_bytes
    for index in reversed(layers):
        current.append(index)
        size += job.model.layers[index].parameters / strategy.tp * GRADIENT_BYTES[job.precision]
        if size >= limit:
            buckets.append(tuple(current))
            current, size, limit = [], 0.0, strategy.bucket_bytes
    if current:
        buckets.append(tuple(current))
    return tuple(buckets)


def shard(model: Model, servers: int) -> tuple[tuple[int, ...], ...]:
    """Layers for each parameter server: the largest layer first, to the server that holds least."""
    shards: list[list[int]] = [[] for _ in range(servers)]
    held = [0] * servers
    if servers:
        for layer in sorted(model.layers, key=lambda layer: (-layer.parameters, layer.index)):
            target = held.index(min(held))
            shards[target].append(layer.index)
            held[target] += layer.parameters
    return tuple(tuple(sorted(layers)) for layers in shards)


def add_transfers(actions: tuple[Actions, ...]) -> tuple[Actions, ...]:
    """Pass activations to the next stage and gradients to the previous one."""
    last = len(actions) - 1

    def around(action: Action) -> list[Action]:
        stage, index = action.stage, action.index
        if action.kind is Kind.FORWARD:
            receive, send, sends, receives = Kind.RECV_F, Kind.SEND_F, stage < last, stage > 0
        elif action.kind in (Kind.BACKWARD, Kind.INPUT_GRADIENT):
            receive, send, sends, receives = Kind.RECV_B, Kind.SEND_B, stage > 0, stage < last
        else:
            return [action]
        before = [Action(stage, receive, index)] if receives else []
        after = [Action(stage, send, index)] if sends else []
        return [*before, action, *after]

    return _expand(actions, around)


def _expand(actions: tuple[Actions, ...], around: Callable[[Action], list[Action]]) -> tuple[Actions, ...]:
    return tuple(tuple(new for action in stage for new in around(action)) for stage in actions)


def add_gradient_reduction(
    actions: tuple[Actions, ...], stages: tuple[Stage, ...], dp: int
) -> tuple[Actions, ...]:
    """All-reduce every bucket over the data-parallel replicas after the last backward."""
    if dp == 1:
        return actions
    return tuple(
        (*own, *(Action(stage.index, Kind.REDUCE_GRAD, i) for i in range(len(stage.buckets))))
        for own, stage in zip(actions, stages, strict=True)
    )


def add_tied_reduction(actions: tuple[Actions, ...], model: Model) -> tuple[Actions, ...]:
    """Sum the gradients of tied embeddings, which the first and the last stage both hold."""
    last = len(actions) - 1
    if last == 0 or not model.decoder.tied_embeddings:
        return actions
    return tuple(
        (*own, Action(stage, Kind.REDUCE_TIED)) if stage in (0, last) else own
        for stage, own in enumerate(actions)
    )


def add_step(actions: tuple[Actions, ...]) -> tuple[Actions, ...]:
    """End with the optimizer's step."""
    return tuple((*own, Action(stage, Kind.STEP)) for stage, own in enumerate(actions))


def add_push_and_pull(actions: tuple[Actions, ...]) -> tuple[Actions, ...]:
    """Begin with the servers' parameters, end by sending them the gradients."""
    return tuple(
        (Action(stage, Kind.PULL), *own, Action(stage, Kind.PUSH)) for stage, own in enumerate(actions)
    )


def server_actions(strategy: Strategy) -> tuple[Actions, ...]:
    """What each server does in one step; the index is the worker.

    A synchronous server waits for all gradients before its one step. An asynchronous one steps for each
    worker's gradients as they come, so only the order within one worker's three actions is meant.
    """
    workers = range(strategy.dp)
    step = Action(0, Kind.STEP)
    if strategy.synchrony == "async":
        one = tuple(
            action for w in workers for action in (Action(0, Kind.PULL, w), Action(0, Kind.PUSH, w), step)
        )
    else:
        pulls = tuple(Action(0, Kind.PULL, w) for w in workers)
        pushes = tuple(Action(0, Kind.PUSH, w) for w in workers)
        one = (*pulls, *pushes, step)
    return (one,) * strategy.servers
