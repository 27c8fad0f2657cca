"""A Plan with parameter servers on a Cluster, as an UpdateModel.

Every worker has its own interface (or its node's, where a link is the node's), and so has every server that
is not at a worker's place. On a host, ranks take turns on its cores, which also handle the messages; a
message is as fast as was measured, and those of one server go one after the other (incast).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ..costs.compute import concurrency_factor
from ..costs.costs import Costs
from ..costs.stage import StageCosts
from ..hardware.cluster import Cluster
from ..hardware.straggler_factors import link_factor, persistent_factors, transient_factors
from ..plan.action import Kind
from ..plan.plan import Plan
from ..variability.jitter import jittered
from .model import UpdateModel

ROUNDS = 12
"""Rounds that are played where workers do not keep step, so that most of them see the steady state."""


def update_model(
    plan: Plan, cluster: Cluster, costs: Costs, seed: int = 0, sample: int | None = None
) -> UpdateModel:
    """What decides the updates of ``plan``; with ``sample``, as drawn for that sample."""
    s = plan.strategy
    name, count = s.protocol
    # Holders copy an update before the next round reads it, and buckets that are updated first are pulled
    # while others are still pushed, so it takes a second round to see that.
    gradients = max(1, count) * (2 if s.server_replicas > 1 or plan.stages[0].buckets else 1)
    if name in ("async", "stale", "backup"):
        gradients = ROUNDS
    portions = plan.portions
    parameters = [sum(plan.job.model.layers[i].parameters for i in own.layers) for own in portions]
    slowdown = concurrency_factor(cluster, min(plan.world_size, cluster.accelerators_per_node))
    shared = _cores(plan, cluster, costs)
    interface = interface_of(plan, cluster)
    latency, rates = _network(plan, cluster, costs, max(own.size_bytes for own in portions), interface)
    return UpdateModel(
        synchrony=s.synchrony,
        compute_s=_compute_s(plan, cluster, costs, slowdown, (s.dp, gradients), seed, sample),
        shard_bytes=[own.size_bytes for own in portions],
        shard_server=[own.server for own in portions],
        ready=_ready(plan, costs),
        apply_s=[costs.optimizer.update_s(count) * slowdown for count in parameters],
        servers=s.servers,
        replicas=s.server_replicas,
        colocated=s.servers_colocated,
        cores=shared.cores if shared else (),
        slice_s=shared.slice_s if shared else math.inf,
        handling_s=shared.handling_s if shared else (),
        message_s=shared.message_s if shared else (),
        worker_interface=interface[: s.dp],
        server_interface=[interface[rank] for rank in plan.server_ranks],
        bandwidth=rates,
        latency_s=0.0 if shared else latency,
    )


def _ready(plan: Plan, costs: Costs) -> list[float]:
    """By bucket: the share of a round's computing after which its gradients are whole, in the backward of the
    last micro-batch; empty where there are no buckets."""
    stage, layers = StageCosts(costs), plan.job.model.layers
    passes = plan.micro_batches * stage.compute_s(layers, Kind.FORWARD, Kind.BACKWARD)
    below = [stage.compute_s(layers[: min(bucket)], Kind.BACKWARD) for bucket in plan.stages[0].buckets]
    return [1.0 - seconds / passes for seconds in below] if passes else [1.0] * len(below)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Cores:
    """Cores of a host that ranks take turns on, and what messages cost them."""

    cores: list[int]
    slice_s: float
    handling_s: list[float]
    message_s: list[float]


def _cores(plan: Plan, cluster: Cluster, costs: Costs) -> _Cores | None:
    """Ranks of a node are pinned to its cores in turn, and gloo's messages are handled by them."""
    host = cluster.host
    if host is None:
        return None
    per_node = min(plan.world_size, cluster.accelerators_per_node)
    cores = min(host.cores, per_node)
    places = [*range(plan.strategy.dp), *plan.server_ranks]
    communication = costs.communication
    ends = (0, plan.world_size - 1)
    sizes = [own.size_bytes for own in plan.portions]
    walls = [communication.transfer_s(size, *ends) for size in sizes]
    handling = [
        min(communication.transfer_cpu_s(size), wall) for size, wall in zip(sizes, walls, strict=True)
    ]
    return _Cores(
        cores=[rank // per_node * cores + rank % per_node % cores for rank in places],
        slice_s=host.time_slice_s,
        handling_s=handling,
        message_s=[wall - cpu for wall, cpu in zip(walls, handling, strict=True)],
    )


def _compute_s(
    plan: Plan,
    cluster: Cluster,
    costs: Costs,
    slowdown: float,
    shape: tuple[int, int],
    seed: int,
    sample: int | None,
) -> np.ndarray:
    """float64[worker, gradient]; a worker that averages steps its own parameters after each gradient."""
    stage, layers = StageCosts(costs), plan.job.model.layers
    passes = sum(stage.compute_s(layers, kind) for kind in (Kind.FORWARD, Kind.BACKWARD))
    seconds = passes * plan.micro_batches * slowdown
    if plan.strategy.protocol[0] == "local":
        seconds += costs.optimizer.update_s(plan.job.model.parameters) * slowdown
    factors = persistent_factors(cluster, plan.world_size)
    if sample is not None:
        factors = factors * transient_factors(cluster, seed, sample, plan.world_size)
    each = np.full(shape, seconds) * factors[: shape[0], None]
    if sample is None or not cluster.jitter:
        return each
    return jittered(each.reshape(-1), cluster.jitter, seed, sample).reshape(shape)


def interface_of(plan: Plan, cluster: Cluster) -> list[int]:
    """By rank: its own interface, or its node's where the nodes' link is the node's."""
    link = cluster.link("nodes")
    per_node = cluster.accelerators_per_node
    across = plan.world_size > per_node
    shared = across and link is not None and link.per_node
    return [rank // per_node if shared else rank for rank in range(plan.world_size)]


def _network(
    plan: Plan, cluster: Cluster, costs: Costs, size_bytes: float, interface: list[int]
) -> tuple[float, list[float]]:
    """Latency, and the bandwidth of every interface, as a message to the farthest rank sees them."""
    ends = (0, plan.world_size - 1) if plan.world_size > 1 else (0, 0)
    latency = costs.communication.transfer_s(1.0, *ends)
    whole = costs.communication.transfer_s(size_bytes, *ends)
    rate = max(1.0, size_bytes - 1.0) / max(whole - latency, 1e-12)
    per_node = cluster.accelerators_per_node
    rates = [rate] * (max(interface) + 1)
    for rank, number in enumerate(interface):
        rates[number] = rate * link_factor(cluster, rank // per_node)
    return latency, rates
