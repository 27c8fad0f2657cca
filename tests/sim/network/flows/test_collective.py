"""Collectives at flow level: closed forms on a switch, shared links elsewhere, several groups at once."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from machines import INFINIBAND, NVLINK, gpu_cluster

from traincast.sim.errors import InputError
from traincast.sim.hardware.cluster import FabricSpec, Link
from traincast.sim.network.algorithms import ALGORITHMS
from traincast.sim.network.fabrics.fabric import TRUNK
from traincast.sim.network.fabrics.fat_tree import Shape, fat_tree
from traincast.sim.network.fabrics.switch import switch
from traincast.sim.network.fabrics.torus import torus
from traincast.sim.network.flows.collective import (
    Group,
    fabric_for_flows,
    flow_collective_s,
    transport_by_flows,
)
from traincast.sim.network.flows.steps import collective_flows
from traincast.sim.network.transport import transport

BANDWIDTH, LATENCY, SIZE = 4.0, 0.5, 96.0

FORMS = [
    (name, operation)
    for name in ("ring", "direct", "halving_doubling")
    for operation in ("all_reduce", "all_gather", "reduce_scatter", "all_to_all")
] + [("direct", "broadcast")]


def star(hosts: int):
    """A switch on which a message takes LATENCY, half up and half down."""
    return switch(hosts, bandwidth=BANDWIDTH, latency=LATENCY / 2)


def alone_s(fabric, operation: str, algorithm: str, ranks) -> float:
    group = Group(steps=collective_flows(operation, algorithm, ranks, SIZE))
    return float(flow_collective_s(fabric, [group])[0])


@pytest.mark.parametrize(("algorithm", "operation"), FORMS)
@pytest.mark.parametrize("ranks", [2, 3, 8, 12, 16])
def test_on_a_switch_flows_take_what_the_closed_form_says(algorithm, operation, ranks):
    """Ports are all there is to share; also where ranks are no power of two."""
    expected = ALGORITHMS[algorithm][operation](SIZE, ranks, BANDWIDTH, LATENCY)
    assert alone_s(star(16), operation, algorithm, range(ranks)) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(("algorithm", "operation"), FORMS)
def test_bytes_are_those_of_the_operation(algorithm, operation):
    """What every rank hears in an all-gather, a reduce-scatter or an all-to-all adds up: (n-1)/n, or more
    where blocks travel over others (Bruck); twice that in an all-reduce."""
    ranks = 8
    steps = collective_flows(operation, algorithm, range(ranks), SIZE)
    heard = np.zeros(ranks)
    for step in steps:
        np.add.at(heard, step.targets, step.sizes * step.repeats)
        assert (step.sources != step.targets).all()
    least = {"all_reduce": 2 * 7 / 8, "broadcast": 7 / 8}.get(operation, 7 / 8)
    exact = {("halving_doubling", "all_to_all"): 3 / 2, ("direct", "broadcast"): 7 / 8}
    assert heard.mean() == pytest.approx(SIZE * exact.get((algorithm, operation), least))


def test_one_rank_costs_nothing():
    assert collective_flows("all_reduce", "ring", [3], SIZE) == ()
    assert flow_collective_s(star(4), [Group(steps=(), begin=2.0)]).tolist() == [2.0]


@pytest.mark.parametrize("count", [1, 2, 4, 8])
def test_groups_that_share_an_uplink_are_as_many_times_slower(count):
    """Pairs across two leaves with one uplink; without latency the time is all bytes."""
    tree = fat_tree(
        Shape(hosts=16, radix=8, oversubscription=8.0),
        bandwidth=BANDWIDTH,
        latency=0.0,
        trunk_bandwidth=BANDWIDTH,
        trunk_latency=0.0,
    )
    groups = [Group(steps=collective_flows("all_reduce", "ring", [i, 8 + i], SIZE)) for i in range(count)]
    alone = 2 * SIZE / 2 / BANDWIDTH
    assert flow_collective_s(tree, groups) == pytest.approx(np.full(count, count * alone))


def test_groups_slow_each_other_only_while_they_meet():
    """A short job beside a long one: both at half speed until the short one is over."""
    tree = fat_tree(
        Shape(hosts=16, radix=8, oversubscription=8.0),
        bandwidth=1.0,
        latency=0.0,
        trunk_bandwidth=1.0,
        trunk_latency=0.0,
    )
    short, long = (collective_flows("all_reduce", "ring", [i, 8 + i], s) for i, s in ((0, 10.0), (1, 30.0)))
    assert flow_collective_s(tree, [Group(steps=short), Group(steps=long)]) == pytest.approx([20.0, 40.0])
    later = [Group(steps=short, begin=5.0), Group(steps=long)]
    assert flow_collective_s(tree, later) == pytest.approx([25.0, 40.0])
    assert flow_collective_s(tree, [Group(steps=short, begin=100.0), Group(steps=long)]) == pytest.approx(
        [110.0, 30.0]
    )


def test_groups_apart_do_not_know_of_each_other():
    """Halves of a switch, with different operations: each as alone, latencies and all."""
    plans = [("all_reduce", "ring", range(8)), ("all_to_all", "ring", range(8, 16))]
    groups = [Group(steps=collective_flows(op, name, ranks, SIZE)) for op, name, ranks in plans]
    alone = [alone_s(star(16), *plan) for plan in plans]
    assert flow_collective_s(star(16), groups) == pytest.approx(alone, rel=1e-12)


def test_a_ring_of_neighbours_fits_a_torus_and_an_all_to_all_does_not():
    """On a ring of 8 every hop of the all-reduce has its link; an all-to-all crosses the middle."""
    net = torus((8,), bandwidth=BANDWIDTH, latency=LATENCY)
    ring = ALGORITHMS["ring"]["all_reduce"](SIZE, 8, BANDWIDTH, LATENCY)
    assert alone_s(net, "all_reduce", "ring", range(8)) == pytest.approx(ring)
    # Distances 1, 2, 3 and half of the 4s go up: each of 8 links up carries 1+2+3+4 parts of an eighth.
    last = alone_s(net, "all_to_all", "direct", range(8))
    busiest = (1 + 2 + 3 + 4) * SIZE / 8 / BANDWIDTH
    assert busiest <= last <= busiest + 4 * LATENCY


def test_rings_leave_a_node_by_an_adapter_each():
    """Two nodes of two: a whole part goes round inside a node, half of one over each adapter."""
    (step,) = collective_flows("all_gather", "ring", range(4), 8.0, per_node=2)
    flows = list(zip(step.sources.tolist(), step.targets.tolist(), step.sizes.tolist(), strict=True))
    inside, across = [(0, 1, 2.0), (1, 0, 2.0), (2, 3, 2.0), (3, 2, 2.0)], [(0, 2), (1, 3), (2, 0), (3, 1)]
    assert (flows, step.repeats) == (inside + [(*ends, 1.0) for ends in across], 3)


def test_nodes_that_hold_different_numbers_have_one_ring():
    (step,) = collective_flows("all_gather", "ring", range(3), 3.0, per_node=2)
    assert (step.sources.tolist(), step.targets.tolist()) == ([0, 1, 2], [1, 2, 0])


# With clusters

TRUNK_LINK = Link(name="trunk", joins="switches", bandwidth=25e9, latency=1e-6)


def cluster(nodes: int = 4, **fabric):
    links = {"nvlink": NVLINK, "ib": INFINIBAND, "trunk": TRUNK_LINK}
    spec = FabricSpec(**fabric) if fabric else None
    return gpu_cluster(nodes=nodes, per_node=8, links=links, fabric=spec)


def test_flows_agree_with_static_shares_on_a_switch():
    """Large buffers, where bytes are all that counts: a node's eight adapters together, or one each."""
    machine = cluster()
    for operation, algorithm in (("all_reduce", "ring"), ("all_gather", "ring"), ("all_to_all", "direct")):
        expected = transport(machine, operation, range(32), 8e9, algorithm=algorithm)
        (found,), name = transport_by_flows(machine, operation, [range(32)], 8e9, algorithm=algorithm)
        assert name == algorithm
        assert found == pytest.approx(expected, rel=0.02)
    strided = range(0, 32, 8)
    expected = transport(machine, "all_reduce", strided, 8e9, algorithm="ring")
    assert transport_by_flows(machine, "all_reduce", [strided], 8e9)[0][0] == pytest.approx(expected)


def test_oversubscription_is_felt_as_with_static_shares():
    """Leaves of two nodes with a quarter of the uplinks: all eight groups across the leaves at once."""
    machine = cluster(kind="fat_tree", radix=16, oversubscription=4.0, trunk="trunk")
    groups = [range(i, 32, 16) for i in range(8)]
    expected = transport(machine, "all_reduce", groups[0], 8e9, algorithm="ring", sharing=8)
    found, _ = transport_by_flows(machine, "all_reduce", groups, 8e9)
    assert found == pytest.approx(np.full(8, expected), rel=1e-3)


def test_links_carry_what_their_efficiency_leaves():
    """Half at small sizes, all at large ones."""
    slow_start = replace(INFINIBAND, efficiency=((1e3, 0.5), (1e9, 1.0)))
    machine = cluster(kind="fat_tree", radix=16, trunk="trunk")
    machine = replace(machine, links={**machine.links, "ib": slow_start})
    small, large = (fabric_for_flows(machine, size) for size in (1e3, 1e9))
    share = small.link_bandwidth / large.link_bandwidth
    assert set(share[small.link_kind == TRUNK]) == {1.0}
    assert sorted(set(share)) == [0.5, 1.0]


def test_a_node_alone_is_a_switch():
    """No link between nodes is needed then."""
    node = gpu_cluster(nodes=1, per_node=8, links={"nvlink": NVLINK})
    expected = transport(node, "all_reduce", range(8), 1e9, algorithm="ring")
    assert transport_by_flows(node, "all_reduce", [range(8)], 1e9)[0][0] == pytest.approx(expected)


def test_what_has_no_steps_is_refused():
    with pytest.raises(InputError, match="broadcast by tree is not known as steps of flows"):
        collective_flows("broadcast", "tree", range(4), SIZE)
    with pytest.raises(InputError, match="over 2000 ranks has 3,998,000 flows"):
        collective_flows("all_to_all", "direct", range(2000), SIZE)
