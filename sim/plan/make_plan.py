"""From Job and Strategy to Plan: partition the layers, generate the schedule, lower it by small passes.

Each pass takes the action lists of all pipeline ranks and returns them with one concern added.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache
from itertools import chain

from ..errors import Fault, InputError
from .action import BACKWARDS, Action, Actions, Kind
from .job import Job
from .partition import partition, shard
from .pass_times import PassTimes
from .plan import Plan, Stage
from .schedules import CARRIED, Orders, find_schedule, schedule, schedule_faults
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
    if orders is None:
        actions = _schedule_with_transfers(*_order_of(job, strategy), times)
    else:
        actions = add_transfers(orders)
    if strategy.protocol[0] == "local":
        actions = repeat_steps(actions, strategy.steps(job), strategy.micro_batches(job))
    if strategy.gradient_exchange == "parameter_server":
        actions = add_push_and_pull(actions)
    else:
        actions = _with_updates(actions, job, strategy, passes.stages)
    return replace(
        passes,
        actions=actions,
        server_actions=server_actions(strategy),
        cluster=cluster or {},
    )


def sketch(
    job: Job, strategy: Strategy, *, orders: Orders | None = None, times: PassTimes | None = None
) -> Plan:
    """The plan of a valid strategy with nothing but its passes: all that its memory depends on."""
    if orders is None:
        orders = schedule(*_order_of(job, strategy), times)
    return Plan(
        job=job,
        strategy=strategy,
        stages=partition(job, strategy),
        actions=orders,
        shards=shard(job.model, strategy.servers),
    )


def _order_of(job: Job, strategy: Strategy) -> tuple[str, int, int, int]:
    """Name and sizes of a strategy's schedule; one that never drains goes on for several steps."""
    micro_batches = strategy.micro_batches(job)
    if strategy.is_unflushed:
        micro_batches *= strategy.steps(job)
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
    name: str, ranks: int, virtual: int, micro_batches: int, times: PassTimes | None
) -> Orders:
    """Kept, since a search asks for the same one again and again."""
    return add_transfers(schedule(name, ranks, virtual, micro_batches, times))


def _with_updates(actions: Orders, job: Job, strategy: Strategy, stages: tuple[Stage, ...]) -> Orders:
    """Gather and reduce over the replicas, and step."""
    micro_batches = strategy.micro_batches(job)
    local = strategy.protocol[0] == "local"
    if strategy.shards_parameters and strategy.replicas > 1:
        actions = add_unsharding(actions, strategy.reshard_after_forward)
    unflushed = find_schedule(strategy.schedule).unflushed
    if unflushed and unflushed.updates_every_micro_batch and strategy.is_unflushed:
        step_every, reduce_every = 1, 1
    else:
        step_every = micro_batches
        reduce_every = 1 if strategy.reduces_every_micro_batch else micro_batches
    if not local:
        actions = add_gradient_reduction(actions, stages, reduce_every)
    actions = add_step(actions, stages, step_every, tied=job.model.decoder.tied_embeddings)
    if strategy.sharding in ("zero1", "zero2") and strategy.replicas > 1:
        actions = add_gathering(actions)
    if local and strategy.replicas > 1:
        actions = tuple((*own, Action.of(Kind.AVERAGE, rank=rank)) for rank, own in enumerate(actions))
    return actions


def repeat_steps(actions: Orders, steps: int, micro_batches: int) -> Orders:
    """The same step ``steps`` times, micro-batches numbered on."""

    def numbered(action: Action, offset: int) -> Action:
        parts = tuple(numbered(part, offset) for part in action.parts)
        return replace(action, micro_batch=action.micro_batch + offset, parts=parts)

    return tuple(
        tuple(numbered(action, step * micro_batches) for step in range(steps) for action in own)
        for own in actions
    )


def stage_ranks(actions: Sequence[Actions]) -> dict[int, int]:
    """By stage: the pipeline rank whose list runs it."""
    return {
        part.stage: rank
        for rank, own in enumerate(actions)
        for action in own
        for part in action.passes
        if part.stage >= 0
    }


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

    return _expand(actions, around)


def _expand(actions: Orders, around: Callable[[Action], list[Action]]) -> Orders:
    return tuple(tuple(new for action in own for new in around(action)) for own in actions)


def add_unsharding(actions: Orders, reshard_after_forward: bool) -> Orders:
    """Gather a stage's parameters before a pass that computes with them, drop them after it; or, kept, once.

    A weight gradient alone needs none.
    """

    def around(action: Action) -> list[Action]:
        stages = {part.stage for part in action.passes if part.kind is not Kind.WEIGHT_GRADIENT}
        if not any(_is_pass(part) for part in action.passes):
            return [action]
        gather = [Action(stage, Kind.UNSHARD) for stage in sorted(stages)]
        drop = [Action(stage, Kind.RESHARD) for stage in sorted(stages)]
        return [*gather, action, *drop]

    if reshard_after_forward:
        return _expand(actions, around)
    return tuple(_unshard_once(own) for own in actions)


def _is_pass(action: Action) -> bool:
    return action.kind in (Kind.FORWARD, Kind.BACKWARD, Kind.INPUT_GRADIENT, Kind.WEIGHT_GRADIENT)


def _unshard_once(own: Actions) -> Actions:
    last = {part.stage: place for place, a in enumerate(own) for part in a.passes if _is_pass(part)}
    seen: set[int] = set()
    lowered: list[Action] = []
    for place, action in enumerate(own):
        stages = {part.stage for part in action.passes if _is_pass(part)}
        lowered += [Action(stage, Kind.UNSHARD) for stage in sorted(stages - seen)]
        seen |= stages
        lowered.append(action)
        lowered += [Action(stage, Kind.RESHARD) for stage in sorted(stages) if last[stage] == place]
    return tuple(lowered)


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


def add_gathering(actions: Orders) -> Orders:
    """Gather the parameters that each replica stepped a part of (ZeRO stages 1 and 2)."""
    rank_of = stage_ranks(actions)

    def around(action: Action) -> list[Action]:
        if action.kind is not Kind.STEP:
            return [action]
        held = sorted(stage for stage, rank in rank_of.items() if rank == action.rank)
        return [action, *(Action(stage, Kind.UNSHARD) for stage in held)]

    return _expand(actions, around)


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
