"""Families of strategies: what tells one way to train from another, and one or more of each to run here."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import product

from ..sim.plan.family import family, family_parts
from ..sim.plan.job import Job
from ..sim.plan.make_plan import order_faults
from ..sim.plan.schedules import CARRIED, find_schedule, is_registered, schedule_names, schedules
from ..sim.plan.strategy import CP_EXCHANGES, RECOMPUTES, Strategy
from ..sim.plan.strategy_rules import strategy_faults

SERVER = {"gradient_exchange": "parameter_server", "servers": 1}


def kind(strategy: Strategy) -> tuple[str, ...]:
    """Its family in coarse words, a word for each thing that shares the work out: families of one kind differ
    in detail, as zero1 and fsdp do, and kinds in what they must wait for.

    >>> from traincast.sim.plan.strategy import Strategy
    >>> kind(Strategy(dp=4, sharding="fsdp")), kind(Strategy(dp=2, pp=2, schedule="zb-h1"))
    (('sharded parameters',), ('replicas', 'halved backwards'))
    """
    return tuple(_coarse(part) for part in family_parts(strategy))


_COARSE = {
    "ddp": "replicas",
    **dict.fromkeys(("zero1", "zero2"), "sharded states"),
    **dict.fromkeys(("fsdp", "hsdp"), "sharded parameters"),
    **{f"parameter server {name}": "servers" for name in ("sync", "backup")},
    **{f"parameter server {name}": "asynchronous servers" for name in ("async", "stale")},
    **{f"context parallel {exchange}": "context parallel" for exchange in CP_EXCHANGES},
    **{f"recompute {what}": "recompute" for what in RECOMPUTES},
}


def _coarse(part: str) -> str:
    """A part of a family in coarse words; of a pipeline what tells its schedule from others."""
    if part not in schedule_names():
        return _COARSE.get(part, part)
    schedule = find_schedule(part)
    if schedule.unflushed:
        return "undrained pipeline"
    if schedule.splits_backward:
        return "halved backwards"
    return "pipeline" if schedule.virtual_stages == 1 else "several stages a rank"


def ways(job: Job, ranks: int) -> list[Strategy]:
    """Valid strategies of every family on up to ``ranks`` processes, without repetition."""
    found: dict[Strategy, None] = {}
    for strategy in _drawn(job, ranks):
        for micro_batch in _micro_batches(job, strategy.dp):
            sized = replace(strategy, micro_batch=micro_batch)
            if not strategy_faults(sized, job) and _has_a_point(sized, job):
                found[sized] = None
    return list(found)


def _drawn(job: Job, ranks: int) -> Iterator[Strategy]:
    counts = [count for count in (2, 3, 4, 8) if count <= ranks]
    even = [count for count in counts if count % 2 == 0]
    yield Strategy()
    for count in even:
        yield from _of_replicas(count)
        yield from _of_divided_layers(count)
        yield from _of_pipelines(count, job)
        if count >= 4:
            yield from _products(count)
    for count in counts:
        yield from _of_servers(count)


def _of_replicas(count: int) -> Iterator[Strategy]:
    yield Strategy(dp=count)
    yield Strategy(dp=count, bucket_bytes=2**20)
    yield Strategy(dp=count, synchrony="local:4")
    for sharding in ("zero1", "zero2", "fsdp"):
        yield Strategy(dp=count, sharding=sharding)
    yield Strategy(dp=count, sharding="fsdp", reshard_after_forward=False)
    if count >= 4:
        yield Strategy(dp=count, sharding="hsdp", shard_degree=2)
    for recompute in ("selective", "full"):
        yield Strategy(dp=count, recompute=recompute)
    yield Strategy(dp=count, ep=count)


def _of_divided_layers(count: int) -> Iterator[Strategy]:
    yield Strategy(tp=count)
    yield Strategy(tp=count, sequence_parallel=True)
    for exchange in CP_EXCHANGES:
        yield Strategy(cp=count, cp_exchange=exchange)


def _of_pipelines(count: int, job: Job) -> Iterator[Strategy]:
    for one in schedules():
        if is_registered(one.name) or one.name == CARRIED:
            continue
        for vp in one.searched_with or (one.virtual_stages or 1,):
            if one.virtual_stages is not None or job.model.blocks % (count * vp) == 0:
                yield Strategy(pp=count, vp=vp, schedule=one.name)


def _products(count: int) -> Iterator[Strategy]:
    half = count // 2
    for schedule in ("1f1b", "zb-h1"):
        yield Strategy(dp=half, pp=2, schedule=schedule)
    yield Strategy(dp=half, pp=2, sharding="fsdp", reshard_after_forward=False)
    yield Strategy(dp=half, tp=2)
    yield Strategy(dp=half, tp=2, sharding="fsdp")
    yield Strategy(tp=half, pp=2)
    yield Strategy(cp=half, pp=2)
    yield Strategy(dp=half, cp=2)
    yield Strategy(dp=half, ep=half, pp=2)


def _of_servers(count: int) -> Iterator[Strategy]:
    for synchrony in ("sync", "async", "stale:1"):
        yield Strategy(dp=count - 1, synchrony=synchrony, **SERVER)
    if count > 2:
        yield Strategy(dp=count - 1, synchrony="backup:1", **SERVER)


def _micro_batches(job: Job, dp: int) -> list[int]:
    share = max(1, job.global_batch // dp)
    return [2**power for power in range(share.bit_length()) if share % 2**power == 0]


def _has_a_point(strategy: Strategy, job: Job) -> bool:
    """Several workers to a server, several micro-batches to a pipeline."""
    if strategy.servers and strategy.dp == 1:
        return False
    count = strategy.micro_batches(job)
    return strategy.pp == 1 or (count >= strategy.pp and not order_faults(strategy, count))


def spread(strategies: Iterable[Strategy], most: int) -> list[Strategy]:
    """Of each family the first ones in turn, ``most`` in all."""
    waiting: dict[str, list[Strategy]] = {}
    for strategy in strategies:
        waiting.setdefault(family(strategy), []).append(strategy)
    turns = product(range(max(map(len, waiting.values()), default=0)), waiting.values())
    return [own[turn] for turn, own in turns if turn < len(own)][:most]
