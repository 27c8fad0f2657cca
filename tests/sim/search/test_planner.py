"""Search: the proven best is brute force's best, and the result explains itself."""

from __future__ import annotations

from dataclasses import replace

import pytest

from traincast.sim.errors import NoPlanError
from traincast.sim.memory.peak import memory
from traincast.sim.plan.make_plan import make_plan
from traincast.sim.plan.strategy_rules import strategy_faults
from traincast.sim.predict.simulate import simulate
from traincast.sim.search.planner import search
from traincast.sim.search.space import divisors, strategies


@pytest.mark.parametrize("cluster_name", ["round_cluster", "host_cluster"])
def test_search_finds_what_brute_force_finds(tiny_job, cluster_name, request):
    """The top plans are those of simulating every valid strategy that fits."""
    cluster = request.getfixturevalue(cluster_name)
    every = []
    for strategy in strategies(tiny_job, cluster):
        if strategy_faults(strategy, tiny_job):
            continue
        plan = make_plan(tiny_job, strategy)
        if all(place.fits for place in memory(plan, cluster)):
            every.append((simulate(plan, cluster).step_time_s, strategy.label))
    found = search(tiny_job, cluster, strategies(tiny_job, cluster), top=3, samples=1)
    best = [(r.trace.metadata["deterministic_step_time_s"], r.plan.strategy.label) for r in found.plans]
    assert best == sorted(every)[:3]
    counts = found.counts
    assert counts["considered"] == counts["refused"] + counts["bounded"] + counts["simulated"]
    assert counts["refused"] == counts["considered"] - len(every)


def test_runners_up_say_why_they_lost(tiny_job, round_cluster):
    found = search(tiny_job, round_cluster, strategies(tiny_job, round_cluster), top=4)
    assert found.plans[0].why_not == ""
    assert all(ranked.why_not.startswith("+") for ranked in found.plans[1:])


def test_nothing_fits_says_what_is_missing(tiny_job, round_cluster):
    small = replace(round_cluster, accelerator=replace(round_cluster.accelerator, memory_bytes=1000.0))
    with pytest.raises(NoPlanError, match=r"no plan fits: \d+ strategies considered.*closest is .* short of"):
        search(tiny_job, small, strategies(tiny_job, small))


def test_divisors():
    assert divisors(12) == [1, 2, 3, 4, 6, 12]
    assert divisors(1) == [1]
