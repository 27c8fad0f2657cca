"""When passes are at work."""

from __future__ import annotations

import itertools

import pytest
from machines import gpu_cluster, job, llama

from traincast.sim.memory.peak import rank_walk
from traincast.sim.plan.make_plan import make_plan
from traincast.sim.plan.strategy import Strategy
from traincast.sim.predict.pass_spans import pass_spans


@pytest.mark.parametrize("schedule", ["1f1b", "gpipe", "zb-h1"])
def test_one_span_for_each_pass_in_order(schedule: str):
    """They follow each other on the rank, and a later stage begins later."""
    plan = make_plan(job(llama(layers=4), global_batch=8), Strategy(dp=2, pp=2, schedule=schedule))
    spans = [pass_spans(plan, gpu_cluster(), rank) for rank in range(2)]
    for rank, own in enumerate(spans):
        assert len(own) == len(rank_walk(plan, rank).stages)
        assert all(a[1] <= b[0] + 1e-12 for a, b in itertools.pairwise(own))
    assert spans[0][0][0] < spans[1][0][0]
