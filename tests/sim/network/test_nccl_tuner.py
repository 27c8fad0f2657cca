"""NCCL's choice: its own figures by hand, and the order of protocols and algorithms everybody sees."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from machines import INFINIBAND, NVLINK, gpu_cluster

from traincast.sim.network.nccl_tuner import Machine, estimates, usable
from traincast.sim.network.nccl_tuner import choose as choose_by_nccl
from traincast.sim.network.transport import choose

NODE = Machine(ranks=8, nodes=1, bandwidth=360e9)
PAIR = Machine(ranks=16, nodes=2, bandwidth=360e9)
MANY = Machine(ranks=512, nodes=64, bandwidth=360e9)


def seconds(operation: str, size: float, machine: Machine) -> dict:
    return {(c.algorithm, c.protocol): c.seconds for c in estimates(operation, size, machine)}


def test_one_node_by_hand():
    """tuning.cc with 8 ranks: base + 14 steps, and 8/14 of the bus; LL at most 87.7 GB/s of it."""
    found = seconds("all_reduce", 2.0**26, NODE)
    assert found["ring", "Simple"] == pytest.approx(8.4e-6 + 14 * 3.4e-6 + 2**26 / (360e9 * 8 / 14))
    assert found["ring", "LL128"] == pytest.approx(14e-6 + 14 * 1.9e-6 + 2**26 / (0.92 * 360e9 * 8 / 14))
    assert found["ring", "LL"] == pytest.approx(6.6e-6 + 14 * 0.6e-6 + 2**26 / (87.7e9 * 8 / 14))
    assert found["tree", "Simple"] == pytest.approx(14 * 28e-6 + 2**26 / (0.92 * 360e9 * 0.8 / 2))


def test_two_nodes_by_hand():
    """Four of thirty steps cross the network, and each posts to it: 3 us in Simple; rings crowd (1.4)."""
    found = seconds("all_reduce", 2.0**30, PAIR)
    latency = 26 * 3.4e-6 + 4 * 14e-6
    assert found["ring", "Simple"] == pytest.approx(8.4e-6 + 1.4 * latency + 2**30 / (360e9 * 16 / 30))
    assert found["tree", "LL128"] == pytest.approx(
        14e-6 + 2 * (7 * 1.25e-6 + 8.5e-6) + 2**30 / (0.92 * 360e9 * 120 / 128 / 2)
    )
    assert found["tree", "LL"] == pytest.approx(6.8e-6 + 2 * (7 * 0.6e-6 + 5e-6) + 2**30 / (39e9 / 2))


def test_protocols_come_in_the_order_of_sizes():
    """LL for the smallest, LL128 in between, Simple for the largest."""
    sizes = [2.0**power for power in range(3, 34)]
    order = [choose_by_nccl("all_reduce", size, NODE).protocol for size in sizes]
    assert order == sorted(order, key=["LL", "LL128", "Simple"].index)
    assert (order[0], order[-1]) == ("LL", "Simple")
    assert "LL128" in order


def test_trees_win_between_many_nodes_until_bytes_decide():
    """The reason NCCL 2.4 gave for them."""
    assert choose_by_nccl("all_reduce", 2.0**16, MANY).algorithm == "tree"
    assert choose_by_nccl("all_reduce", 2.0**36, MANY).algorithm == "ring"


def test_switches_that_add_are_used_where_there_are_some():
    """NVLink SHARP in a node, its tree or SHARP between nodes; only sums and what is like them."""
    assert choose_by_nccl("all_reduce", 2.0**30, replace(NODE, nvls=True)).algorithm == "nvls"
    assert usable("all_reduce", replace(PAIR, nvls=True, collnet=True)) == (
        "ring",
        "tree",
        "collnet",
        "nvls_tree",
    )
    assert usable("all_gather", replace(NODE, nvls=True)) == ("ring", "nvls")
    assert usable("broadcast", replace(NODE, nvls=True)) == ("ring",)
    tree = [
        seconds("all_reduce", 2.0**30, replace(m, nvls=True))["nvls_tree", "Simple"] for m in (PAIR, MANY)
    ]
    assert tree == pytest.approx(
        [23e-6 + 2 * 14e-6 + 2**30 / 300e9, 23e-6 + 2 * 6 * 14e-6 + 2**30 / 150e9], rel=1e-12
    )


@given(
    st.sampled_from(["all_reduce", "all_gather", "reduce_scatter", "broadcast"]),
    st.floats(1, 1e12),
    st.integers(1, 64),
    st.integers(2, 16),
    st.floats(1, 100),
)
def test_more_bandwidth_never_hurts_and_the_cheapest_wins(operation, size, nodes, per_node, factor):
    machine = Machine(ranks=nodes * per_node, nodes=nodes, bandwidth=25e9)
    ways = estimates(operation, size, machine)
    best = choose_by_nccl(operation, size, machine)
    assert best.seconds == min(way.seconds for way in ways)
    faster = replace(machine, bandwidth=25e9 * factor)
    assert choose_by_nccl(operation, size, faster).seconds <= best.seconds
    assert choose_by_nccl(operation, size, replace(machine, network_s=1e-3)).seconds >= best.seconds


def test_a_cluster_with_the_library_is_chosen_for_by_it():
    """Algorithm, protocol and seconds; a named algorithm leaves it the protocol."""
    cluster = gpu_cluster(library="nccl")
    small, large = (choose(cluster, "all_reduce", range(8), size) for size in (1024.0, 2.0**30))
    assert (small.protocol, large.algorithm, large.protocol) == ("LL", "ring", "Simple")
    machine = Machine(ranks=8, nodes=1, bandwidth=300e9, network_s=2e-6)
    assert large == choose_by_nccl("all_reduce", 2.0**30, machine)
    assert choose(cluster, "all_reduce", range(8), 2.0**30, algorithm="tree").algorithm == "tree"
    adding = gpu_cluster(library="nccl", links={"nvlink": replace(NVLINK, in_network=True), "ib": INFINIBAND})
    assert choose(adding, "all_reduce", range(8), 2.0**30).algorithm == "nvls"


def test_without_a_library_links_that_add_do_so():
    """SHARP's closed form: the buffer once, two hops."""
    adding = gpu_cluster(links={"nvlink": replace(NVLINK, in_network=True), "ib": INFINIBAND})
    found = choose(adding, "all_reduce", range(8), 1e9)
    assert (found.algorithm, found.seconds) == ("in_network", pytest.approx(4e-6 + 1e9 / 300e9))
