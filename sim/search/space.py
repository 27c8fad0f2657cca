"""The strategies worth considering for a job on a cluster."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Any

from ..hardware.cluster import Cluster
from ..plan.job import Job
from ..plan.schedules import Schedule, is_registered, schedules
from ..plan.strategy import Strategy

MAX_MICRO_BATCH = 64
"""Larger micro-batches do not make kernels more efficient, they only lengthen the bubble."""

RECOMPUTES = ("none", "selective", "full")
"""The policies that every stack has."""

MAX_SAMPLES = 1024
"""The same where a sample is one token, as an image: AlexNet was trained with 512 on a GPU."""

MIN_CONTEXT = 4096
"""Tokens of a sequence on one context-parallel rank below which ring attention no longer hides its messages
(Liu et al. 2023, Ring Attention, table 2: some thousands over NVLink)."""


def strategies(job: Job, cluster: Cluster, *, parameter_servers: bool = True) -> Iterator[Strategy]:
    """Every strategy of the search space, valid or not; the planner refuses what breaks a rule.

    Accelerators are all used; where ranks are processes on a host's cores, any number of them may be.
    """
    limit = cluster.accelerators
    for world in range(1, limit + 1) if cluster.host else [limit]:
        yield from _all_reduce(job, cluster, world)
        if parameter_servers:
            yield from _parameter_server(job, world)


def _all_reduce(job: Job, cluster: Cluster, world: int) -> Iterator[Strategy]:
    for tp, pp, cp in product(divisors(world), divisors(world), _context_degrees(job, cluster)):
        if world % (tp * pp * cp) or tp > cluster.accelerators_per_node:
            continue
        dp = world // (tp * pp * cp)
        own = _micro_batches(job, dp), _orders(job, cluster, pp), RECOMPUTES, _shardings(cluster, dp * cp, pp)
        for micro_batch, (schedule, vp), recompute, sharding in product(*own):
            for ep in _expert_degrees(job, dp * cp, cp):
                yield Strategy(
                    dp=dp,
                    tp=tp,
                    pp=pp,
                    vp=vp,
                    cp=cp,
                    ep=ep,
                    micro_batch=micro_batch,
                    schedule=schedule,
                    recompute=recompute,
                    sequence_parallel=tp > 1 and not cluster.host and job.seq_len % (tp * cp) == 0,
                    **sharding,
                )


def _context_degrees(job: Job, cluster: Cluster) -> list[int]:
    """Powers of two that leave each rank a long part of every sequence."""
    if cluster.host:
        return [1]
    return [
        degree
        for degree in _powers_of_two(cluster.accelerators)
        if degree == 1 or job.seq_len // degree >= MIN_CONTEXT
    ]


def _orders(job: Job, cluster: Cluster, pp: int) -> list[tuple[str, int]]:
    """(schedule, virtual stages) worth trying: on a host's processes only what they can run."""
    if pp == 1:
        return [(Strategy().schedule, 1)]
    tried = [one for one in schedules() if not cluster.host or (one.is_plain and not is_registered(one.name))]
    # What leaves the number of stages open comes last, with one after the other.
    tried.sort(key=lambda one: one.virtual_stages is None)
    return [(one.name, vp) for one in tried for vp in one.searched_with if _divides(one, vp, pp, job)]


def _divides(schedule: Schedule, vp: int, pp: int, job: Job) -> bool:
    """Whether the stages are alike, where the schedule leaves their number open."""
    return schedule.virtual_stages is not None or job.model.blocks % (pp * vp) == 0


def _shardings(cluster: Cluster, replicas: int, pp: int) -> list[dict[str, Any]]:
    """Fields of the ways to share out a replica's states; in a pipeline what was gathered is kept."""
    if replicas == 1 or cluster.host:
        return [{}]
    return [{}, {"sharding": "zero1"}, {"sharding": "fsdp", "reshard_after_forward": pp == 1}]


def _expert_degrees(job: Job, replicas: int, cp: int) -> list[int]:
    experts = job.model.decoder.experts
    if not experts:
        return [1]
    return [d for d in divisors(replicas) if experts % d == 0 and (d % cp == 0 or cp % d == 0)]


def _parameter_server(job: Job, world: int) -> Iterator[Strategy]:
    for servers in _powers_of_two(world // 2):
        dp = world - servers
        for micro_batch, synchrony in product(_micro_batches(job, dp), ("sync", "async")):
            yield Strategy(
                dp=dp,
                micro_batch=micro_batch,
                gradient_exchange="parameter_server",
                servers=servers,
                synchrony=synchrony,
            )


def divisors(number: int) -> list[int]:
    """All divisors of ``number``, rising."""
    low = [d for d in range(1, int(number**0.5) + 1) if number % d == 0]
    return sorted({*low, *(number // d for d in low)})


def _micro_batches(job: Job, dp: int) -> list[int]:
    """Powers of two up to a replica's share of the batch."""
    limit = MAX_MICRO_BATCH if job.seq_len > 1 or job.model.network is None else MAX_SAMPLES
    return _powers_of_two(min(limit, max(1, job.global_batch // dp)))


def _powers_of_two(limit: int) -> list[int]:
    return [2**i for i in range(limit.bit_length()) if 2**i <= limit]
