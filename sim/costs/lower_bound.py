"""Closed-form lower bound on step time.

It counts only what must happen one after the other: a rank's compute after the first micro-batch reaches
it, and what follows its last backward. Messages between ranks are left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ..model.layer import Layer
from ..plan.action import Kind
from ..plan.job import Job
from ..plan.partition import partition
from ..plan.plan import Stage
from ..plan.rank_parameters import split_parameters
from ..plan.schedules import find_schedule
from ..plan.sharding import gathers_parameters, reduces_every_micro_batch
from ..plan.step_counts import is_unflushed, steps_played
from ..plan.strategy import Strategy
from ..plan.traffic import Collective, reduction
from .accelerator_mix import accelerators_of
from .compute import concurrency_factor
from .costs import Costs
from .stage import StageCosts

ROUNDING = 1e-9
"""Relative margin of the bound for sums that the simulation adds up in another order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _StageTimes:
    """Seconds of one rank of a stage: compute with the exchanges inside its layers."""

    forward_s: float
    backward_s: float
    compute_s: float
    """Forward and backward without the exchanges: what occupies a core."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Tail:
    """What a pipeline rank does after its last backward, in seconds."""

    step_s: float
    reduce_s: tuple[tuple[float, ...], ...]
    """By stage it holds: the reductions that nothing hides, all buckets' or the last one's."""


def lower_bound_s(costs: Costs, job: Job, strategy: Strategy) -> float:
    """Seconds that the simulated step of ``strategy`` cannot go below (jitter aside).

    The latest of: for each rank, the forwards before its first stage, its own compute, then either its last
    reduction and optimizer step or the backwards before its first stage; all that it gathers and reduces of
    sharded parameters; and all compute spread evenly over the cores that ranks share. A pipeline that is
    never drained has no forwards to wait for. Where accelerators differ, as if all were the kind that is
    fastest at this.
    """
    kinds = accelerators_of(costs.cluster)
    if len(kinds) > 1:
        clusters = [replace(costs.cluster, accelerator=kind, node_groups=()) for kind in kinds]
        return min(lower_bound_s(Costs(one, job, strategy), job, strategy) for one in clusters)
    slowdown = _slowdown(costs, strategy)
    staged = costs.cluster.host is not None and costs.cluster.host.host_staged
    parts = partition(job, strategy)
    times = _Stages(costs, slowdown)
    stages = [times.of(stage) for stage in parts]
    held, schedule = _held(strategy), find_schedule(strategy.schedule)
    tails = [
        _tail(costs, job, rank, [parts[s] for s in own], slowdown, staged) for rank, own in enumerate(held)
    ]
    micro_batches = strategy.micro_batches(job)
    bound = _cores_s(costs, stages, tails, micro_batches, strategy)
    for own, tail in zip(held, tails, strict=True):
        if schedule.overlaps:
            # Exchanges of one pass may all hide behind the compute of another.
            bound = max(bound, micro_batches * sum(stages[s].compute_s for s in own) + tail.step_s)
            continue
        compute = micro_batches * sum(stages[s].forward_s + stages[s].backward_s for s in own)
        if is_unflushed(strategy):
            bound = max(bound, compute)
            continue
        bound = max(bound, _sharding_s(costs, [parts[s] for s in own]))
        # Local steps follow each other without draining the pipeline.
        begin = sum(stage.forward_s for stage in stages[: own[0]]) / steps_played(strategy, job)
        bound = max(bound, begin + compute + _tail_s(tail, staged, strategy))
        if not schedule.splits_backward and steps_played(strategy, job) == 1:
            # No weight gradients are left for later, so a rank ends with a backward of its first stage: any
            # other pass of a micro-batch is followed by that one. The stages before make theirs after it.
            bound = max(bound, begin + compute + sum(stage.backward_s for stage in stages[: own[0]]))
    return bound * (1 - ROUNDING)


def _held(strategy: Strategy) -> list[list[int]]:
    """Stages of each pipeline rank. A rank's last backward need not be its first stage's, but the backwards
    of the stages before that one all follow one of its own."""
    held: list[list[int]] = [[] for _ in range(strategy.pp)]
    rank_of = find_schedule(strategy.schedule).stage_rank
    for stage in range(strategy.stages):
        held[rank_of(stage, strategy.pp)].append(stage)
    return held


def _tail_s(tail: _Tail, staged: bool, strategy: Strategy) -> float:
    """After the last backward the last bucket's reduction; or, where the core that computes moves the bytes,
    its share of all of them."""
    if strategy.protocol[0] == "local":
        return tail.step_s
    if staged:
        return sum(map(sum, tail.reduce_s)) + tail.step_s
    return min(sum(stage[-1:]) for stage in tail.reduce_s) + tail.step_s


def _sharding_s(costs: Costs, held: list[Stage]) -> float:
    """All that a rank of gathered parameters gathers and reduces, one after the other; 0 of other ranks."""
    job, strategy = costs.job, costs.strategy
    if not gathers_parameters(strategy) or strategy.replicas == 1:
        return 0.0
    micro_batches = strategy.micro_batches(job)
    gatherings = 2 * micro_batches if strategy.reshard_after_forward else 1
    reductions = micro_batches if reduces_every_micro_batch(strategy) else 1
    layers = [job.model.layers[i] for stage in held for i in stage.layer_indices]
    return StageCosts(costs).sharding_s(layers, gatherings=gatherings, reductions=reductions)


def _cores_s(
    costs: Costs, stages: list[_StageTimes], tails: list[_Tail], micro_batches: int, strategy: Strategy
) -> float:
    """All workers' compute over all cores they can use; 0 where every rank has its own device."""
    host = costs.cluster.host
    if host is None:
        return 0.0
    per_node = costs.cluster.accelerators_per_node
    nodes = -(-strategy.world_size // per_node)
    cores = nodes * min(host.cores, per_node)
    work = micro_batches * sum(stage.compute_s for stage in stages) + sum(tail.step_s for tail in tails)
    return work * strategy.replicas * strategy.tp / cores


def _slowdown(costs: Costs, strategy: Strategy) -> float:
    return concurrency_factor(costs.cluster, min(strategy.world_size, costs.cluster.accelerators_per_node))


class _Stages:
    """Times of stages; those with the same kinds of layers have the same."""

    def __init__(self, costs: Costs, slowdown: float):
        self.costs, self.slowdown = StageCosts(costs), slowdown
        self._layers = costs.job.model.layers
        self._known: dict[tuple[str, ...], _StageTimes] = {}

    def of(self, stage: Stage) -> _StageTimes:
        layers = self._layers[stage.first_layer : stage.end_layer]
        key = tuple([layer.kind for layer in layers])
        if key not in self._known:
            self._known[key] = self._times(layers)
        return self._known[key]

    def _times(self, layers: Sequence[Layer]) -> _StageTimes:
        forward = self.costs.compute_s(layers, Kind.FORWARD) * self.slowdown
        backward = self.costs.compute_s(layers, Kind.BACKWARD) * self.slowdown
        return _StageTimes(
            forward_s=forward + self.costs.exchanges_s(layers, backward=False),
            backward_s=backward + self.costs.exchanges_s(layers, backward=True),
            compute_s=forward + backward,
        )


def _tail(
    costs: Costs, job: Job, pipeline_rank: int, held: list[Stage], slowdown: float, staged: bool
) -> _Tail:
    layers, strategy = job.model.layers, costs.strategy
    own = [layers[i] for stage in held for i in stage.layer_indices]
    steps_itself = strategy.gradient_exchange != "parameter_server"
    first = pipeline_rank * strategy.replicas * strategy.tp

    host = costs.cluster.host
    disturbed = min(1.0, host.traffic) if host is not None else 1.0

    def one_s(collective: Collective) -> float:
        shares = costs.communication.group_shares(collective, first)
        return shares.cpu_s * disturbed if staged else shares.seconds

    def reduce(buckets: tuple[tuple[int, ...], ...]) -> tuple[float, ...]:
        counted = buckets if staged else buckets[-1:]
        sizes = [split_parameters((layers[i] for i in bucket), strategy) for bucket in counted]
        found = [reduction(job, strategy, *size) for size in sizes]
        return tuple(sum(one_s(one) for one in own) for own in found)

    return _Tail(
        step_s=StageCosts(costs).step_s(own) * slowdown if steps_itself else 0.0,
        reduce_s=tuple(reduce(stage.buckets) for stage in held),
    )
