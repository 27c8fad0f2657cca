"""Closed-form lower bound on step time.

It counts only what must happen one after the other: a rank's compute after the first micro-batch reaches
it, and what follows its last backward. Messages between ranks are left out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from ..model.layer import Layer
from ..plan.job import Job
from ..plan.partition import partition
from ..plan.plan import Stage
from ..plan.schedules import find_schedule
from ..plan.strategy import Strategy
from .accelerator_mix import accelerators_of
from .compute import Costs
from .traffic import gathering, reduction, split_parameters

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
    times = _StageCosts(costs, slowdown)
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
        if strategy.is_unflushed:
            bound = max(bound, compute)
            continue
        bound = max(bound, _sharding_s(costs, [parts[s] for s in own]))
        # Local steps follow each other without draining the pipeline.
        begin = sum(stage.forward_s for stage in stages[: own[0]]) / strategy.steps(job)
        bound = max(bound, begin + compute + _tail_s(tail, staged, strategy))
        if not schedule.splits_backward and strategy.steps(job) == 1:
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
    """After the last backward: staged reductions all wait for compute, others only the last bucket's."""
    if strategy.protocol[0] == "local":
        return tail.step_s
    if staged:
        return sum(map(sum, tail.reduce_s)) + tail.step_s
    return min(sum(stage[-1:]) for stage in tail.reduce_s) + tail.step_s


def _sharding_s(costs: Costs, held: list[Stage]) -> float:
    """All that a rank of gathered parameters gathers and reduces, one after the other; 0 of other ranks."""
    job, strategy = costs.job, costs.strategy
    if not strategy.shards_parameters or strategy.replicas == 1:
        return 0.0
    micro_batches = strategy.micro_batches(job)
    gathers = 2 * micro_batches if strategy.reshard_after_forward else 1
    reductions = micro_batches if strategy.reduces_every_micro_batch else 1
    layers = [job.model.layers[i] for stage in held for i in stage.layer_indices]
    total = 0.0
    for layer, count in Counter(_alike(layers)).items():
        size = split_parameters([layer], strategy)
        gathering_s = sum(one.count * costs.group_s(one) for one in gathering(job, strategy, *size))
        reduction_s = sum(costs.group_s(one) for one in reduction(job, strategy, *size))
        total += count * (gathers * gathering_s + reductions * reduction_s)
    return total


def _alike(layers: Sequence[Layer]) -> list[Layer]:
    """``layers``, each as the first of its kind."""
    first = {layer.kind: layer for layer in reversed(layers)}
    return [first[layer.kind] for layer in layers]


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
    return costs.concurrency_factor(min(strategy.world_size, costs.cluster.accelerators_per_node))


class _StageCosts:
    """Seconds of stages; those with as many layers of each kind cost the same."""

    def __init__(self, costs: Costs, slowdown: float):
        self.costs, self.slowdown = costs, slowdown
        self._known: dict[tuple[tuple[str, int], ...], _StageTimes] = {}

    def of(self, stage: Stage) -> _StageTimes:
        layers = self.costs.job.model.layers[stage.first_layer : stage.end_layer]
        counts = Counter(layer.kind for layer in layers)
        key = tuple(sorted(counts.items()))
        if key not in self._known:
            self._known[key] = self._times([(layer, counts[layer.kind]) for layer in _one_of_each(layers)])
        return self._known[key]

    def _times(self, alike: list[tuple[Layer, int]]) -> _StageTimes:
        """``alike`` is one layer of each kind and how many there are of it."""
        costs = self.costs

        def seconds(cost: Callable[[Layer], float]) -> float:
            return sum(count * cost(layer) for layer, count in alike)

        def exchanges(backward: bool) -> float:
            return seconds(lambda layer: sum(s for _, s in costs.exchanges(layer, backward=backward)))

        forward = seconds(costs.forward_s) * self.slowdown
        backward = seconds(costs.backward_s) * self.slowdown
        return _StageTimes(
            forward_s=forward + exchanges(False),
            backward_s=backward + exchanges(True),
            compute_s=forward + backward,
        )


def _tail(
    costs: Costs, job: Job, pipeline_rank: int, held: list[Stage], slowdown: float, staged: bool
) -> _Tail:
    layers, strategy = job.model.layers, costs.strategy
    dense, experts = split_parameters((layers[i] for stage in held for i in stage.layer_indices), strategy)
    steps_itself = strategy.gradient_exchange != "parameter_server"
    first = pipeline_rank * strategy.replicas * strategy.tp

    def reduce(buckets: tuple[tuple[int, ...], ...]) -> tuple[float, ...]:
        counted = buckets if staged else buckets[-1:]
        sizes = [split_parameters((layers[i] for i in bucket), strategy) for bucket in counted]
        return tuple(
            sum(costs.group_s(one, first) for one in reduction(job, strategy, *size)) for size in sizes
        )

    return _Tail(
        step_s=costs.step_s(dense, experts) * slowdown if steps_itself else 0.0,
        reduce_s=tuple(reduce(stage.buckets) for stage in held),
    )


def _one_of_each(layers: Sequence[Layer]) -> list[Layer]:
    return list({layer.kind: layer for layer in layers}.values())
