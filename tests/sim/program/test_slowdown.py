"""Who is how much slower: ranks, and what crosses slow links, lane by lane."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from machines import gpu_cluster

from traincast.sim.hardware.stragglers import parse_slow
from traincast.sim.plan.rank_groups import Groups
from traincast.sim.plan.strategy import Strategy
from traincast.sim.program.slowdown import Slowness

STRATEGY = Strategy(dp=4, tp=2, pp=2)
"""16 ranks on nodes of 4: a stage has two nodes, a node two replicas."""


def slowness(**slow: list[str]) -> Slowness:
    slow_ones = parse_slow(slow.get("ranks", []), slow.get("nodes", []), slow.get("links", []))
    return Slowness(replace(gpu_cluster(nodes=4, per_node=4), stragglers=slow_ones), 16, 8)


def test_where_all_are_alike_there_is_no_table():
    own = slowness()
    assert own.message_row(0, 8) == own.collective_row(Groups(STRATEGY)["replicas"], 0) == -1
    assert own.table is None


def test_ranks_and_nodes_multiply():
    table = slowness(ranks=["5=2"], nodes=["1=1.5"]).table
    assert table is not None
    assert table.tolist() == [1, 1, 1, 1, 1.5, 3, 1.5, 1.5] + [1] * 8


def test_messages_of_a_slow_node_are_slow_at_both_ends():
    """Node 2 holds ranks 8 to 11, the second stage's first four lanes."""
    own = slowness(links=["2=0.25"])
    row = own.message_row(0, 8)
    table = own.table
    assert row == 16
    assert table is not None
    assert table[row : row + 8].tolist() == [4, 4, 4, 4, 1, 1, 1, 1]
    assert own.message_row(0, 8) == row
    assert own.message_row(8, 0) == 24


def test_a_collective_is_as_slow_as_its_slowest_node_and_quick_inside_one():
    own = slowness(links=["1=0.5"])
    groups = Groups(STRATEGY)
    assert own.collective_row(groups["tp"], 0) == -1
    row = own.collective_row(groups["replicas"], 0)
    table = own.table
    assert table is not None
    assert np.all(table[row : row + 8] == 2.0)
    assert own.collective_row(groups["replicas"], 8) == -1
