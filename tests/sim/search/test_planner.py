"""Search: the proven best is brute force's best, and the result explains itself."""

from __future__ import annotations

from dataclasses import replace

import pytest

from traincast.sim.errors import NoPlanError
from traincast.sim.memory.peak import memory
from traincast.sim.plan.make_plan import make_plan
from traincast.sim.plan.strategy import Strategy
from traincast.sim.plan.strategy_rules import strategy_faults
from traincast.sim.plan.synchrony import is_synchronous
from traincast.sim.predict.simulate import simulate
from traincast.sim.search.planner import search
from traincast.sim.search.space import divisors, strategies


@pytest.mark.parametrize("cluster_name", ["round_cluster", "host_cluster"])
def test_search_finds_what_brute_force_finds(tiny_job, cluster_name, request):
    """The top plans are those of simulating every valid strategy that fits, the synchronous ones first; of
    the others those that take less than the last of these."""
    cluster = request.getfixturevalue(cluster_name)
    every = []
    for strategy in strategies(tiny_job, cluster):
        if strategy_faults(strategy, tiny_job):
            continue
        plan = make_plan(tiny_job, strategy)
        if all(place.fits for place in memory(plan, cluster)):
            every.append((simulate(plan, cluster).step_time_s, strategy.label, is_synchronous(strategy)))
    found = search(tiny_job, cluster, strategies(tiny_job, cluster), top=3, samples=1)
    best = [(r.trace.metadata["deterministic_step_time_s"], r.plan.strategy.label) for r in found.plans]
    first = [(seconds, label) for seconds, label, synchronous in sorted(every) if synchronous][:3]
    others = [(seconds, label) for seconds, label, synchronous in sorted(every) if not synchronous][:3]
    assert best == first + [one for one in others if one[0] <= first[-1][0]]
    counts = found.counts
    assert counts["considered"] == counts["refused"] + counts["bounded"] + counts["simulated"]
    assert counts["refused"] == counts["considered"] - len(every)


def test_runners_up_say_why_they_lost(tiny_job, round_cluster):
    found = search(tiny_job, round_cluster, strategies(tiny_job, round_cluster), top=4)
    assert found.plans[0].why_not == ""
    assert all(ranked.why_not.startswith("+") for ranked in found.plans[1:])


def test_asynchronous_plans_are_ranked_among_themselves(tiny_job, host_cluster):
    """However fast their updates come: after the synchronous ones, with a first of their own."""
    servers = {"gradient_exchange": "parameter_server", "servers": 1}
    space = [
        Strategy(dp=2, synchrony="async", **servers),
        Strategy(dp=2, synchrony="stale:1", **servers),
        Strategy(dp=2, synchrony="local:4"),
        Strategy(dp=1),
        Strategy(pp=2),
    ]
    found = search(tiny_job, host_cluster, space, top=len(space))
    kinds = [is_synchronous(one.plan.strategy) for one in found.plans]
    assert kinds == [True, True, False, False, False]
    assert [one.why_not == "" for one in found.plans] == [True, False, True, False, False]
    assert found.best is found.plans[0]
    assert [one.to_dict()["synchronous"] for one in found.plans] == kinds
    alone = search(tiny_job, host_cluster, space[:2], top=1)
    assert [one.plan.strategy.synchrony for one in alone.plans] == ["async"]


def test_nothing_fits_says_what_is_missing(tiny_job, round_cluster):
    small = replace(round_cluster, accelerator=replace(round_cluster.accelerator, memory_bytes=1000.0))
    with pytest.raises(NoPlanError, match=r"no plan fits: \d+ strategies considered.*closest is .* short of"):
        search(tiny_job, small, strategies(tiny_job, small))


def test_divisors():
    assert divisors(12) == [1, 2, 3, 4, 6, 12]
    assert divisors(1) == [1]
