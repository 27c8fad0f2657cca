"""The strategies worth considering for a job on a cluster."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

from .cluster import Cluster
from .job import Job
from .strategy import RECOMPUTES, SCHEDULES, Strategy

MAX_MICRO_BATCH = 64
"""Larger micro-batches do not make kernels more efficient, they only lengthen the bubble."""


def strategies(job: Job, cluster: Cluster, *, parameter_servers: bool = True) -> Iterator[Strategy]:
    """Every strategy of the search space, lawful or not; the planner refuses what breaks a rule.

    Accelerators are all used; where ranks are processes on a host's cores, any number of them may be.
    """
    limit = cluster.accelerators
    for world in range(1, limit + 1) if cluster.host else [limit]:
        yield from _all_reduce(job, cluster, world)
        if parameter_servers:
            yield from _parameter_server(job, world)


def _all_reduce(job: Job, cluster: Cluster, world: int) -> Iterator[Strategy]:
    for tp, pp in product(divisors(world), divisors(world)):
        if world % (tp * pp) or tp > cluster.accelerators_per_node:
            continue
        dp = world // (tp * pp)
        schedules = SCHEDULES if pp > 1 else ("1f1b",)
        for micro_batch, schedule, recompute in product(_micro_batches(job, dp), schedules, RECOMPUTES):
            yield Strategy(
                dp=dp, tp=tp, pp=pp, micro_batch=micro_batch, schedule=schedule, recompute=recompute
            )


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
    return _powers_of_two(min(MAX_MICRO_BATCH, max(1, job.global_batch // dp)))


def _powers_of_two(limit: int) -> list[int]:
    return [2**i for i in range(limit.bit_length()) if 2**i <= limit]
