"""Bounds never exceed the simulation; estimates order plans as it does."""

from __future__ import annotations

from dataclasses import replace

import pytest
from generators import jobs_and_strategies
from hypothesis import given, settings
from hypothesis import strategies as st
from machines import INFINIBAND, NVLINK, cpu_cluster, gpt3_175b, gpu_cluster, job, llama

from traincast.sim.costs.costs import Costs
from traincast.sim.costs.lower_bound import lower_bound_s
from traincast.sim.hardware.cluster import Cluster
from traincast.sim.plan.job import Job
from traincast.sim.plan.make_plan import make_plan
from traincast.sim.plan.strategy import Strategy
from traincast.sim.predict.simulate import simulate

MODEL = llama(layers=5, kv_heads=8)
CLUSTERS = {"gpus": gpu_cluster(nodes=6, per_node=4), "cores": cpu_cluster(ranks=24, cores=2)}


def strategies() -> st.SearchStrategy[Strategy]:
    """All-reduce and parameter-server strategies that are valid for `MODEL` with a batch of 32."""
    small = st.sampled_from([1, 2, 4])
    ours = st.builds(
        Strategy,
        dp=small,
        tp=st.sampled_from([1, 2]),
        pp=st.sampled_from([1, 2, 3]),
        micro_batch=small,
        schedule=st.sampled_from(["gpipe", "1f1b"]),
        recompute=st.sampled_from(["none", "selective", "full"]),
        bucket_bytes=st.sampled_from([2**18, 2**25]),
    )
    servers = st.builds(
        Strategy,
        dp=small,
        micro_batch=small,
        gradient_exchange=st.just("parameter_server"),
        servers=st.sampled_from([1, 2]),
        synchrony=st.sampled_from(["sync", "async"]),
    )
    return ours | servers


def times(strategy: Strategy, cluster: Cluster, own: Job) -> tuple[float, float]:
    """Lower bound and simulated step."""
    costs = Costs(cluster, own, strategy)
    step = simulate(make_plan(own, strategy), cluster).step_time_s
    return lower_bound_s(costs, own, strategy), step


@settings(max_examples=120, deadline=None)
@given(strategies(), st.sampled_from(sorted(CLUSTERS)))
def test_no_simulation_goes_below_the_bound(strategy: Strategy, name: str):
    """On devices of their own and on shared cores."""
    bound, step = times(strategy, CLUSTERS[name], job(MODEL, global_batch=32))
    assert 0 < bound <= step


@settings(max_examples=300, deadline=None)
@given(jobs_and_strategies(), st.booleans())
def test_no_strategy_at_all_goes_below_its_bound(drawn: tuple[Job, Strategy], cores: bool):
    """Every schedule, sharding, exchange and protocol."""
    own, strategy = drawn
    alone = gpu_cluster(nodes=32, per_node=4)
    cluster = cpu_cluster(ranks=strategy.world_size, cores=2) if cores else alone
    bound, step = times(strategy, cluster, own)
    assert 0 < bound <= step


def test_alone_the_bound_is_the_step():
    """One rank does everything one after the other."""
    bound, step = times(Strategy(micro_batch=4), CLUSTERS["gpus"], job(MODEL, global_batch=32))
    assert bound == pytest.approx(step, rel=1e-6)


def test_the_bubble_of_alike_stages_is_p_minus_one():
    """Stages of blocks that dominate: (m + p - 1)(F + B), so the bubble shrinks with micro-batches."""
    model = llama(layers=32, hidden=1024, heads=8, kv_heads=8, vocab=8)
    own = Job(model=model, global_batch=16, seq_len=512)
    strategy = Strategy(pp=4, micro_batch=1, stack="torchtitan-compile")  # no launch is waited for
    costs = Costs(CLUSTERS["gpus"], own, strategy)
    block = model.layers[1]
    both = 8 * (costs.compute.forward_s(block) + costs.compute.backward_s(block))
    step = simulate(make_plan(own, strategy), CLUSTERS["gpus"]).step_time_s
    assert step == pytest.approx((16 + 4 - 1) * both, rel=0.06)


@pytest.mark.parametrize(("recompute", "measured"), [("full", 18.13), ("selective", 13.75)])
def test_175b_by_data_sheet_is_near_its_measurement(recompute: str, measured: float):
    """GPT-3 175B on 64 A100 (Korthikanti et al. 2022, table 5), with default efficiencies alone.

    They interleaved, and had unfused attention and dropout; so 15 % is all that can be asked.
    """
    strategy = Strategy(tp=8, pp=8, recompute=recompute)
    own = Job(model=gpt3_175b(), global_batch=64, seq_len=2048)
    nvlink = replace(NVLINK, efficiency=((1e6, 0.3), (1e8, 0.8)))
    cluster = gpu_cluster(nodes=8, links={"nvlink": nvlink, "ib": INFINIBAND})
    assert simulate(make_plan(own, strategy), cluster).step_time_s == pytest.approx(measured, rel=0.15)
