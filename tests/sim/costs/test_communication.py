"""Seconds of messages and collectives, by their path and their algorithm."""

from __future__ import annotations

from dataclasses import replace

import pytest
from machines import cpu_cluster, gpt3_175b, gpu_cluster, job

from traincast.sim.costs.costs import Costs
from traincast.sim.network import algorithms as collectives
from traincast.sim.plan.job import Job
from traincast.sim.plan.strategy import Strategy

BIG = Job(model=gpt3_175b(), global_batch=64, seq_len=2048)


def test_transfers_take_their_path():
    """Within a node by NVLink, between nodes by the NIC."""
    costs = Costs(gpu_cluster(), BIG, Strategy(tp=4, pp=4))
    assert costs.communication.transfer_s(1e9, 0, 4) == collectives.point_to_point_s(1e9, 300e9, 2e-6)
    assert costs.communication.transfer_s(1e9, 4, 8) == collectives.point_to_point_s(1e9, 25e9, 5e-6)
    assert costs.communication.transfer_cpu_s(1e9) == 0


def test_transfers_of_a_stage_share_the_nodes_link():
    """Four tensor-parallel ranks of a stage send at once."""
    cluster = gpu_cluster()
    shared = replace(cluster, links={**cluster.links, "ib": replace(cluster.links["ib"], per_node=True)})
    costs = Costs(shared, BIG, Strategy(tp=4, pp=4))
    assert costs.communication.transfer_s(1e9, 4, 8) == collectives.point_to_point_s(1e9, 25e9 / 4, 5e-6)


def test_host_staged_messages_cost_processor_time():
    """As measured, on each side."""
    costs = Costs(cpu_cluster(), job(), Strategy(pp=2))
    assert costs.communication.transfer_s(1e6, 0, 1) == pytest.approx(4e-4)
    assert costs.communication.transfer_cpu_s(1e6) == pytest.approx(2e-4)


def test_collectives_go_by_the_strategys_algorithm():
    """A ring, a tree, or the cheaper."""
    size, ranks = 1e5, range(0, 32, 8)
    by = {a: Costs(gpu_cluster(), BIG, Strategy(collective_algorithm=a)) for a in ("ring", "tree", "auto")}
    seconds = {a: c.communication.collective_s("all_reduce", size, ranks) for a, c in by.items()}
    assert seconds["ring"] == collectives.ring_all_reduce_s(size, 4, 25e9, 5e-6)
    assert seconds["tree"] == collectives.tree_all_reduce_s(size, 4, 25e9, 5e-6)
    assert seconds["auto"] == min(seconds["ring"], seconds["tree"])
