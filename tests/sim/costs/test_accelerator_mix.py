"""Clusters with several kinds of accelerators."""

from __future__ import annotations

from dataclasses import replace

import pytest
from machines import gpt, gpu, gpu_cluster
from machines import job as make_job

from traincast.sim.costs.costs import Costs
from traincast.sim.costs.lower_bound import lower_bound_s
from traincast.sim.hardware.cluster import NodeGroup
from traincast.sim.memory.peak import memory
from traincast.sim.plan.make_plan import make_plan
from traincast.sim.plan.strategy import Strategy
from traincast.sim.predict.metrics import metrics
from traincast.sim.predict.simulate import simulate

A100 = gpu()
SLOW = gpu(name="A10", peak_flops={"bf16": 125e12}, memory_bandwidth=0.6e12, memory_bytes=24e9)
MIXED = gpu_cluster(
    nodes=2,
    per_node=8,
    node_groups=(NodeGroup(nodes=1, accelerator=A100), NodeGroup(nodes=1, accelerator=SLOW)),
)
JOB = make_job(gpt(8, 1024, 16, 51200), global_batch=64, seq_len=1024, precision="bf16")


def step_s(strategy: Strategy, cluster=MIXED) -> float:
    return simulate(make_plan(JOB, strategy), cluster).step_time_s


def test_a_synchronous_step_is_as_slow_as_the_slow_half():
    """With data parallelism over both kinds; never slower than if all were slow."""
    strategy = Strategy(dp=16, micro_batch=4)
    fast, slow = (step_s(strategy, gpu_cluster(nodes=2, accelerator=kind)) for kind in (A100, SLOW))
    assert fast < step_s(strategy) <= slow * (1 + 1e-9)
    assert step_s(strategy) == pytest.approx(slow, rel=0.05)


def test_a_pipeline_gives_each_kind_its_stage():
    """Fewer blocks on the slow node's stage make the step shorter."""
    even = Strategy(dp=8, pp=2, micro_batch=1, stage_layers=(4, 4))
    assert step_s(replace(even, stage_layers=(6, 2))) < step_s(even)


def test_each_stage_has_its_own_capacity():
    places = memory(make_plan(JOB, Strategy(dp=8, pp=2)), MIXED)
    assert [place.capacity_bytes for place in places] == [80e9, 24e9]


def test_both_engines_and_the_bound_agree():
    for strategy in (Strategy(dp=16), Strategy(dp=4, tp=2, pp=2), Strategy(dp=16, sharding="fsdp")):
        plan = make_plan(JOB, strategy)
        compiled, simpy = (simulate(plan, MIXED, engine=name) for name in ("compiled", "simpy"))
        assert compiled.spans == simpy.spans
        assert lower_bound_s(Costs(MIXED, JOB, strategy), JOB, strategy) <= compiled.step_time_s


def test_utilisation_counts_every_kind():
    plan = make_plan(JOB, Strategy(dp=16))
    trace = simulate(plan, MIXED)
    alike = metrics(plan, gpu_cluster(nodes=2), trace).mfu
    assert metrics(plan, MIXED, trace).mfu == pytest.approx(alike * 2 * 312 / (312 + 125))
