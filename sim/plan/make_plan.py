"""From Job and Strategy to Plan: partition the layers, generate the schedule, lower it by small passes.

Each pass takes the action lists of all pipeline ranks and returns them with one concern added.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

from ..errors import Fault, InputError
from .action import Action, Actions, Kind
from .action_table import ActionTable, table_of
from .gradient_buckets import pushed_buckets
from .job import Job
from .partition import partition, shard
from .pass_times import PassTimes
from .passes.lists import repeat_steps
from .passes.offload import add_offload
from .passes.reductions import add_averaging, add_gradient_reduction
from .passes.servers import add_push_and_pull, server_actions
from .passes.tables import table_of_passes, table_with_ends, table_with_reductions, table_with_transfers
from .passes.transfers import add_transfers
from .passes.unsharding import add_gathering, add_unsharding
from .passes.updates import add_step
from .plan import Plan, Stage
from .schedules import (
    CARRIED,
    Orders,
    PipelineShape,
    Schedule,
    find_schedule,
    schedule,
    schedule_faults,
)
from .sharding import gathers_parameters, reduces_every_micro_batch
from .step_counts import is_unflushed, steps_played
from .strategy import Strategy
from .strategy_rules import strategy_faults


def make_plan(
    job: Job,
    strategy: Strategy,
    cluster: dict[str, object] | None = None,
    *,
    orders: Orders | None = None,
    times: PassTimes | None = None,
) -> Plan:
    """Lower ``strategy`` for ``job``.

    ``orders`` are the passes of each pipeline rank where the schedule is `csv`; ``times`` are the seconds
    of the passes, which the schedules that arrange themselves (zb-1p, zb-2p) look at.

    Raises:
        InputError: lists every broken rule.
    """
    faults = [*job.faults(), *strategy_faults(strategy, job)]
    if not faults:
        faults = order_faults(strategy, strategy.micro_batches(job), orders)
    if faults:
        raise InputError(faults)
    passes = sketch(job, strategy, orders=orders, times=times)
    table = None if orders else table_of(passes.actions)
    if table is not None and _is_plain(strategy):
        actions = _plain_actions(table, job, strategy, passes.stages)
        return replace(passes, actions=actions, cluster=cluster or {})
    if orders is None:
        _, *sizes = _order_of(job, strategy)
        actions = _schedule_with_transfers(find_schedule(strategy.schedule), *sizes, times)
    else:
        actions = add_transfers(orders)
    if strategy.protocol[0] == "local":
        actions = repeat_steps(actions, steps_played(strategy, job), strategy.micro_batches(job))
    if strategy.gradient_exchange == "parameter_server":
        if strategy.protocol[0] == "local":
            actions = add_step(actions, passes.stages, strategy.micro_batches(job), tied=False)
        actions = add_push_and_pull(actions, len(passes.stages[0].buckets))
    else:
        actions = _with_updates(actions, job, strategy, passes.stages)
    return replace(
        passes,
        actions=actions,
        server_actions=server_actions(strategy, passes.portions),
        cluster=cluster or {},
    )


def sketch(
    job: Job, strategy: Strategy, *, orders: Orders | None = None, times: PassTimes | None = None
) -> Plan:
    """The plan of a valid strategy with nothing but its passes: all that its memory depends on."""
    if orders is None:
        orders = _passes(*_order_of(job, strategy), times)
    stages, shards = partition(job, strategy), shard(job.model, strategy.servers)
    if shards:
        stages = (replace(stages[0], buckets=pushed_buckets(job, strategy, shards)),)
    return Plan(job=job, strategy=strategy, stages=stages, actions=orders, shards=shards)


def _passes(name: str, ranks: int, virtual: int, micro_batches: int, times: PassTimes | None) -> Orders:
    """The passes of a schedule: as columns where it is made as arrays."""
    found = find_schedule(name)
    if found.order_arrays is None or schedule_faults(name, ranks, virtual, micro_batches):
        return schedule(name, ranks, virtual, micro_batches, times)
    return _table(
        found, PipelineShape(ranks=ranks, virtual_stages=virtual, micro_batches=micro_batches)
    ).lists


@lru_cache(maxsize=64)
def _table(schedule: Schedule, shape: PipelineShape) -> ActionTable:
    """Kept, since a search asks for the same one again and again."""
    assert schedule.order_arrays is not None
    return table_of_passes(schedule.order_arrays(shape))


def _is_plain(strategy: Strategy) -> bool:
    """Whether a step is passes, messages, reductions and a step of the optimizer, which tables know."""
    gathers = gathers_parameters(strategy) and strategy.replicas > 1
    simple = strategy.protocol[0] == "sync" and strategy.gradient_exchange != "parameter_server"
    return simple and not (gathers or strategy.offloads_activations or is_unflushed(strategy))


def _plain_actions(table: ActionTable, job: Job, strategy: Strategy, stages: tuple[Stage, ...]) -> Orders:
    """What `_with_updates` makes of a plain step, on columns."""
    rank_of = find_schedule(strategy.schedule).stage_rank
    held: list[list[int]] = [[] for _ in range(strategy.pp)]
    for stage in stages:
        held[rank_of(stage.index, strategy.pp)].append(stage.index)
    empty: Orders = tuple(tuple(Action(stage, Kind.FORWARD) for stage in own) for own in held)
    ends = add_step(empty, stages, 1, tied=job.model.decoder.tied_embeddings)
    if strategy.sharding in ("zero1", "zero2") and strategy.replicas > 1:
        ends = add_gathering(ends)
    added = tuple(tuple(own[len(kept) :]) for own, kept in zip(ends, held, strict=True))
    every = 1 if reduces_every_micro_batch(strategy) else strategy.micro_batches(job)
    return _lowered(table, tuple(len(stage.buckets) for stage in stages), every, added).lists


@lru_cache(maxsize=64)
def _lowered(
    table: ActionTable, buckets: tuple[int, ...], every: int, ends: tuple[Actions, ...]
) -> ActionTable:
    """Kept, since a search asks for the same one again and again."""
    return table_with_ends(table_with_reductions(table_with_transfers(table), buckets, every), ends)


def _order_of(job: Job, strategy: Strategy) -> tuple[str, int, int, int]:
    """Name and sizes of a strategy's schedule; one that never drains goes on for several steps."""
    micro_batches = strategy.micro_batches(job)
    if is_unflushed(strategy):
        micro_batches *= steps_played(strategy, job)
    return strategy.schedule, strategy.pp, strategy.vp, micro_batches


def order_faults(strategy: Strategy, micro_batches: int, orders: Orders | None = None) -> list[Fault]:
    """What is wrong with the strategy's schedule at these degrees; a `csv` brings the orders themselves."""
    if strategy.schedule == CARRIED:
        return _csv_faults(strategy, micro_batches, orders or ())
    return schedule_faults(strategy.schedule, strategy.pp, strategy.vp, micro_batches)


def _csv_faults(strategy: Strategy, micro_batches: int, orders: Orders) -> list[Fault]:
    """Orders are of as many ranks, stages and micro-batches as the strategy says."""
    parts = [part for own in orders for action in own for part in action.passes]
    numbers = {
        "ranks": (len(orders), strategy.pp, "pp"),
        "stages": (len({part.stage for part in parts}), strategy.stages, "pp × vp"),
        "micro-batches": (
            len({part.micro_batch for part in parts}),
            micro_batches,
            "global_batch / dp / micro_batch",
        ),
    }
    return [
        Fault(path="strategy.schedule", found=f"a csv of {found} {what}", expected=f"{wanted} ({why})")
        for what, (found, wanted, why) in numbers.items()
        if found != wanted
    ]


@lru_cache(maxsize=128)
def _schedule_with_transfers(
    found: Schedule, ranks: int, virtual: int, micro_batches: int, times: PassTimes | None
) -> Orders:
    """Kept, since a search asks for the same one again and again; a name may be registered anew."""
    return add_transfers(schedule(found.name, ranks, virtual, micro_batches, times))


def _with_updates(actions: Orders, job: Job, strategy: Strategy, stages: tuple[Stage, ...]) -> Orders:
    """Offload activations, gather and reduce over the replicas, and step."""
    micro_batches = strategy.micro_batches(job)
    local = strategy.protocol[0] == "local"
    if strategy.offloads_activations:
        actions = add_offload(actions)
    if gathers_parameters(strategy) and strategy.replicas > 1:
        actions = add_unsharding(actions, strategy.reshard_after_forward, strategy.prefetch)
    unflushed = find_schedule(strategy.schedule).unflushed
    if unflushed and unflushed.updates_every_micro_batch and is_unflushed(strategy):
        step_every, reduce_every = 1, 1
    else:
        step_every = micro_batches
        reduce_every = 1 if reduces_every_micro_batch(strategy) else micro_batches
    if not local:
        actions = add_gradient_reduction(actions, stages, reduce_every)
    actions = add_step(actions, stages, step_every, tied=job.model.decoder.tied_embeddings)
    if strategy.sharding in ("zero1", "zero2") and strategy.replicas > 1:
        actions = add_gathering(actions)
    if local and strategy.replicas > 1:
        actions = add_averaging(actions)
    return actions
