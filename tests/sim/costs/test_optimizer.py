"""Seconds of an optimizer step."""

from __future__ import annotations

from dataclasses import replace

import pytest
from machines import PCIE, gpu, gpu_cluster, job

from traincast.sim.costs.costs import Costs
from traincast.sim.hardware.cluster import OptimizerCost
from traincast.sim.plan.strategy import Strategy


def test_the_optimizer_is_measured_or_bound_by_memory():
    """AdamW reads and writes 28 bytes a parameter in fp32, 30 with bf16 weights, clipping 12 more."""
    measured = gpu(optimizer_costs={"adamw": OptimizerCost(overhead_s=1e-3, per_parameter_s=1e-9)})
    costs = Costs(gpu_cluster(accelerator=measured), job(), Strategy())
    assert costs.optimizer.update_s(1e6) == pytest.approx(2e-3)
    whole = gpu(memory_efficiency=((1.0, 1.0),), launch_overhead_s=0.0)
    for precision, per_parameter in (("fp32", 40), ("bf16", 42)):
        costs = Costs(gpu_cluster(accelerator=whole), job(precision=precision), Strategy())
        assert costs.optimizer.update_s(1e9) == pytest.approx(per_parameter * 1e9 / 2.04e12)
        assert costs.optimizer.update_s(0) == 0


def test_a_sharded_step_updates_its_share():
    """Dense parameters are divided by the shards, experts by those that are left beyond ep."""
    costs = Costs(gpu_cluster(), job(), Strategy(dp=8, ep=2, sharding="fsdp"))
    assert costs.optimizer.step_s(8e9, 4e9) == costs.optimizer.update_s(1e9 + 1e9)


def test_an_offloaded_step_takes_the_slower_of_arithmetic_and_host_memory():
    """AdamW streams two fp32 states and a master weight of bf16, 12 bytes a parameter."""
    slow, fast = (replace(PCIE, bandwidth=rate, latency=1e-3) for rate in (1e9, 1e15))
    streamed, hidden = (
        Costs(gpu_cluster(links={"pcie": link}), job(precision="bf16"), Strategy(offload="optimizer"))
        for link in (slow, fast)
    )
    assert streamed.optimizer.step_s(1e9, 0.0) == pytest.approx(12.001)
    assert hidden.optimizer.step_s(1e9, 0.0) == hidden.optimizer.update_s(1e9) > 1e-3
