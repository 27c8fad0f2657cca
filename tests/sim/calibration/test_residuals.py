"""Factors from runs: they come back where they were put in, and are held against runs they did not see."""

from __future__ import annotations

from dataclasses import replace

import pytest
from machines import cpu_cluster, job

from traincast.sim.calibration.residuals import (
    LEAST,
    MOST,
    Run,
    correction,
    factors_of,
    phase_seconds,
)
from traincast.sim.plan.make_plan import make_plan
from traincast.sim.plan.strategy import Strategy
from traincast.sim.predict.simulate import simulate
from traincast.sim.trace.trace import Trace

CLUSTER = cpu_cluster(ranks=4, cores=4)
STRATEGIES = [
    Strategy(micro_batch=2),
    Strategy(dp=2, micro_batch=2),
    Strategy(tp=2, micro_batch=2),
    Strategy(pp=2, micro_batch=2),
]
TRUE = {"compute": 1.25, "all_reduce": 1.5}


def runs(**metadata: object) -> list[Run]:
    """As if a machine were slower than its cluster says: predicted with the true factors."""
    plans = [make_plan(job(global_batch=8), strategy) for strategy in STRATEGIES]
    slow = replace(CLUSTER, corrections=TRUE)
    return [Run(plan=plan, measured=as_measured(simulate(plan, slow), **metadata)) for plan in plans]


def as_measured(trace: Trace, **metadata: object) -> Trace:
    return replace(trace, source="measured", metadata=metadata)


def test_factors_come_back_and_help_families_they_did_not_see():
    """All of the error is compute's and the all-reduce's, which other families have too."""
    found = correction(runs(), CLUSTER, simulate)
    assert found.factors["compute"] == pytest.approx(1.25, rel=1e-6)
    assert found.factors["all_reduce"] == pytest.approx(1.5, rel=0.05)
    assert found.before_pct > 10
    assert found.after_pct < 1
    assert [one.family for one in found.shown] == ["one process", "ddp", "tensor parallel", "1f1b"]
    assert all(one.before_pct < 0 for one in found.shown), "predictions were too short"


def test_corrections_that_are_there_are_made_anew():
    """Not on top of what an earlier run said."""
    again = correction(runs(), replace(CLUSTER, corrections={"compute": 3.0}), simulate)
    assert again.factors == correction(runs(), CLUSTER, simulate).factors


def test_a_run_next_to_others_is_compared_with_what_they_left():
    """Half of four cores taken by others explains nothing of ranks that need one."""
    load = {"cores": 4.0, "own": 1.0, "others": 2.0}
    quiet, busy = (correction(runs(**kind), CLUSTER, simulate).factors for kind in ({}, {"load": load}))
    assert busy == quiet


def test_a_factor_is_the_median_within_bounds():
    """Of the logarithms, so that twice and half cancel."""
    assert factors_of([{"compute": 2.0}, {"compute": 0.5}])["compute"] == pytest.approx(1.0)
    assert factors_of([{"compute": 9.0}, {"optimizer": 0.01}]) == {"compute": MOST, "optimizer": LEAST}
    assert factors_of([]) == {}


def test_phases_are_those_that_factors_are_for():
    """Passes and the update on the compute stream; the collectives of data parallelism by their sharding."""
    plan = make_plan(job(global_batch=8), Strategy(dp=2, pp=2, micro_batch=2))
    trace = simulate(plan, CLUSTER)
    found = phase_seconds(trace, plan.strategy)
    assert set(found) == {"compute", "optimizer", "all_reduce", "send_recv"}
    busy = sum(s.duration for s in trace.spans if s.stream == "compute" and s.kind in "FB")
    assert found["compute"] == pytest.approx(busy / 4)
