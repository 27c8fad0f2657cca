"""A closed form that no simulated step time goes below.

It counts only what must happen one after the other: a stage's compute after the first
micro-batch reaches it, and what follows its last backward. Messages between stages are left out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from .costs import Costs
from .job import Job
from .lowering import partition
from .model import Layer
from .plan import Stage
from .strategy import Strategy

ROUNDING = 1e-9
"""Relative margin of the bound for sums that the simulation adds up in another order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _StageTimes:
    """Seconds of one rank of a stage: compute and its tensor-parallel all-reduces."""

    forward_s: float
    backward_s: float
    compute_s: float
    """Forward and backward without the all-reduces: what occupies a core."""
    step_s: float
    """Optimizer step."""
    reduce_s: tuple[float, ...]
    """Each bucket's all-reduce, the one that is ready last at the end."""

    @property
    def both_s(self) -> float:
        return self.forward_s + self.backward_s


def lower_bound_s(costs: Costs, job: Job, strategy: Strategy) -> float:
    """Seconds that the simulated step of ``strategy`` cannot go below (jitter aside).

    The latest of: for each stage, the forwards before it, its own compute, then either its last reduction
    and optimizer step or the backwards before it and the first stage's; and all compute spread evenly over
    the cores that ranks share.
    """
    stages = _stage_times(costs, job, strategy)
    micro_batches = strategy.micro_batches(job)
    staged = costs.cluster.host is not None and costs.cluster.host.host_staged
    first = stages[0]
    bound = _cores_s(costs, stages, micro_batches, strategy)
    forwards = backwards = 0.0
    for stage in stages:
        own = forwards + micro_batches * stage.both_s
        bound = max(bound, own + _tail_s(stage, staged), own + backwards + _last_s(first))
        forwards += stage.forward_s
        backwards += stage.backward_s
    return bound * (1 - ROUNDING)


def _tail_s(stage: _StageTimes, staged: bool) -> float:
    """After the last backward: staged reductions all wait for compute, others only the last one."""
    return (sum(stage.reduce_s) if staged else sum(stage.reduce_s[-1:])) + stage.step_s


def _last_s(first: _StageTimes) -> float:
    return sum(first.reduce_s[-1:]) + first.step_s


def _cores_s(costs: Costs, stages: list[_StageTimes], micro_batches: int, strategy: Strategy) -> float:
    """All workers' compute over all cores they can use; 0 where every rank has its own device."""
    host = costs.cluster.host
    if host is None:
        return 0.0
    per_node = costs.cluster.accelerators_per_node
    nodes = -(-strategy.world_size // per_node)
    cores = nodes * min(host.cores, per_node)
    work = sum(micro_batches * stage.compute_s + stage.step_s for stage in stages)
    return work * strategy.dp * strategy.tp / cores


def _stage_times(costs: Costs, job: Job, strategy: Strategy) -> list[_StageTimes]:
    slowdown = _slowdown(costs, strategy)
    return [_times(costs, job, strategy, stage, slowdown) for stage in partition(job, strategy)]


def _slowdown(costs: Costs, strategy: Strategy) -> float:
    return costs.concurrency_factor(min(strategy.world_size, costs.cluster.accelerators_per_node))


def _times(costs: Costs, job: Job, strategy: Strategy, stage: Stage, slowdown: float) -> _StageTimes:
    layers = [job.model.layers[i] for i in stage.layer_indices]

    def seconds(cost: Callable[[Layer], float]) -> float:
        return sum(count * cost(layer) for layer, count in alike)

    alike = _alike(layers)
    forward = seconds(costs.forward_s) * slowdown
    backward = seconds(costs.backward_s) * slowdown
    steps_itself = strategy.gradient_exchange != "parameter_server"
    parameters = sum(layer.parameters for layer in layers) / strategy.tp
    first_rank = stage.index * strategy.dp * strategy.tp
    replicas = range(first_rank, first_rank + strategy.dp * strategy.tp, strategy.tp)
    sizes = [sum(costs.layer_gradient_bytes(job.model.layers[i]) for i in b) for b in stage.buckets]
    return _StageTimes(
        forward_s=forward + seconds(costs.tensor_parallel_forward_s),
        backward_s=backward + seconds(costs.tensor_parallel_backward_s),
        compute_s=forward + backward,
        step_s=costs.optimizer_s(parameters) * slowdown if steps_itself else 0.0,
        reduce_s=tuple(costs.collective_s("all_reduce", size, replicas) for size in sizes),
    )


def _alike(layers: Sequence[Layer]) -> list[tuple[Layer, int]]:
    """One layer of each kind, which all cost the same, and how many there are of it."""
    counts = Counter(layer.kind for layer in layers)
    return [(layer, counts[layer.kind]) for layer in {layer.kind: layer for layer in layers}.values()]
