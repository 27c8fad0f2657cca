"""Tokens to experts: a copy for each, or one for each node that has any."""

from __future__ import annotations

from dataclasses import replace

import pytest

from traincast.sim.costs.costs import Costs
from traincast.sim.costs.traffic import layer_collectives
from traincast.sim.hardware.cluster_file import read_cluster
from traincast.sim.model.hf_config import read_model
from traincast.sim.plan.job import Job
from traincast.sim.plan.strategy import Strategy
from traincast.sim.plan.strategy_rules import strategy_faults

JOB = Job(model=read_model("qwen3-30b-a3b"), global_batch=32, seq_len=4096)
CLUSTER = read_cluster("hgx-h100")


def seconds(ep: int, dispatch: str, job: Job = JOB) -> float:
    """Of one all-to-all among ``ep`` ranks, 8 of them a node."""
    strategy = Strategy(dp=ep, ep=ep, expert_dispatch=dispatch)
    found = layer_collectives(job, strategy, "moe_block", backward=False)
    (collective,) = [one for one in found if one.dimension == "ep"]
    return Costs(CLUSTER, job, strategy).communication.group_s(collective)


def test_inside_a_node_both_are_one():
    """There is one node to send to."""
    assert seconds(8, "per_node") == seconds(8, "all_to_all")


def test_between_two_nodes_a_quarter_travels():
    """Of 8 experts 4 are on the other node, to which one copy goes: 1 - 2^-8 of them."""
    strategy = Strategy(dp=16, ep=16)
    found = layer_collectives(JOB, strategy, "moe_block", backward=False)
    (collective,) = [one for one in found if one.dimension == "ep"]
    smaller = replace(collective, size_bytes=collective.size_bytes * (1 - 2**-8) / 4)
    inside = replace(collective, count=1)
    costs = Costs(CLUSTER, JOB, strategy)
    between = costs.communication.group_s(smaller)
    within = costs.communication.collective_s("all_to_all", inside.size_bytes, range(8))
    assert seconds(16, "per_node") == pytest.approx(max(between, within), rel=1e-12)
    assert seconds(16, "per_node") < seconds(16, "all_to_all")


def test_a_token_of_one_expert_travels_once_either_way():
    """A copy for each expert is a copy for each node."""
    decoder = replace(JOB.model.decoder, experts_per_token=1)
    job = replace(JOB, model=replace(JOB.model, decoder=decoder))
    assert seconds(16, "per_node", job) == pytest.approx(seconds(16, "all_to_all", job))


def test_what_is_no_dispatch_is_refused():
    """With the choices."""
    (fault,) = strategy_faults(Strategy(expert_dispatch="pigeons"), JOB)
    assert (fault.path, fault.expected) == ("strategy.expert_dispatch", "all_to_all | per_node")
