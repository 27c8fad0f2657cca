"""Paths between ranks and what measured curves make of them."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from machines import INFINIBAND, NVLINK, cpu_cluster, gpu_cluster

from traincast.sim.errors import InputError
from traincast.sim.hardware.cluster import Link, TransportCurve, Wire
from traincast.sim.hardware.curves import interpolate, interpolate_time
from traincast.sim.network.algorithms import ring_all_reduce_s
from traincast.sim.network.transport import SEND_RECV, nodes_of, path, processor_s, transport

LEAF_SPINE = (
    *(Wire(a=f"node{n}", b=f"leaf{n // 2}", link="ib") for n in range(4)),
    Wire(a="leaf0", b="spine", link="trunk"),
    Wire(a="leaf1", b="spine", link="trunk"),
)


def wired(trunk: float = 25e9):
    """Four nodes under two leaves and a spine."""
    links = {
        "nvlink": NVLINK,
        "ib": INFINIBAND,
        "trunk": Link(name="trunk", joins="switches", bandwidth=trunk, latency=1e-6),
    }
    return gpu_cluster(links=links, switches=("leaf0", "leaf1", "spine"), wires=LEAF_SPINE)


def test_ranks_fill_nodes_in_order():
    """Rank r is on node r // accelerators_per_node."""
    assert nodes_of(gpu_cluster(), [0, 7, 8, 31]) == {0: 2, 1: 1, 3: 1}


def test_inside_a_node_is_the_accelerators_link():
    """Whatever the nodes' link is."""
    way = path(gpu_cluster(), range(8))
    assert (way.bandwidth, way.latency, way.link) == (300e9, 2e-6, NVLINK)


def test_between_nodes_every_member_brings_its_nic():
    """One NIC with one member a node, eight with eight, but never more than the link inside."""
    cluster = gpu_cluster()
    assert path(cluster, [0, 8, 16, 24]).bandwidth == 25e9
    assert path(cluster, range(32)).bandwidth == 8 * 25e9
    narrow = replace(cluster, links={"ib": INFINIBAND, "nvlink": replace(NVLINK, bandwidth=100e9)})
    way = path(narrow, range(32))
    assert (way.bandwidth, way.link.name) == (100e9, "nvlink")


def test_a_ring_hops_mostly_inside_nodes():
    """28 hops by NVLink and 4 by InfiniBand; a tree's hop is the longest."""
    way = path(gpu_cluster(), range(32))
    assert way.ring_latency == pytest.approx((28 * 2e-6 + 4 * 5e-6) / 32)
    assert way.latency == 5e-6


def test_a_nodes_own_link_is_shared_by_its_groups():
    """Eight groups of one rank a node get an eighth each; one group of eight gets all of it."""
    shared = gpu_cluster(links={"nvlink": NVLINK, "eth": replace(INFINIBAND, name="eth", per_node=True)})
    assert path(shared, [0, 8], sharing=8).bandwidth == 25e9 / 8
    assert path(shared, range(16)).bandwidth == 25e9


def test_wires_are_followed_by_the_shortest_route():
    """Two leaf hops within a leaf; up and down the spine between leaves."""
    cluster = wired()
    assert path(cluster, [0, 8]).latency == pytest.approx(1e-5)
    assert path(cluster, [0, 16]).latency == pytest.approx(1.2e-5)


def test_a_narrow_wire_limits_the_path():
    """A trunk of 10 GB/s between the leaves; the NICs of eight members share it."""
    way = path(wired(trunk=10e9), range(32))
    assert (way.bandwidth, way.link.name) == (10e9, "trunk")
    assert path(wired(trunk=10e9), [0, 8]).bandwidth == 25e9


def test_hops_that_cross_one_wire_share_it():
    """With neighbours under one leaf the ring climbs the spine once each way, with nodes dealt to the
    leaves in turn twice."""
    dealt = replace(
        wired(),
        wires=(
            *(Wire(a=f"node{n}", b=f"leaf{n % 2}", link="ib") for n in range(4)),
            *LEAF_SPINE[4:],
        ),
    )
    assert path(wired(), [0, 8, 16, 24]).bandwidth == 25e9
    assert path(dealt, [0, 8, 16, 24]).bandwidth == 12.5e9


def test_nodes_without_wires_are_refused():
    """The message names both ends."""
    cut = replace(wired(), wires=LEAF_SPINE[:-1])
    with pytest.raises(InputError, match="no wires of cluster gpus join node1 to node2"):
        path(cut, [8, 16])
    with pytest.raises(InputError, match="no link that joins nodes"):
        path(gpu_cluster(links={"nvlink": NVLINK}), [0, 8])


def test_the_closed_form_runs_at_the_links_efficiency():
    """Half of the bandwidth at this size."""
    half = replace(NVLINK, efficiency=((1e6, 0.1), (1e8, 0.5)))
    cluster = gpu_cluster(links={"nvlink": half})
    seconds = transport(cluster, "all_reduce", range(8), 1e8, algorithm="ring")
    assert seconds == ring_all_reduce_s(1e8, 8, 150e9, 2e-6)


def test_a_measured_curve_comes_before_the_closed_form():
    """Its points exactly, between them straight in log-log, beyond them by the last slope."""
    cluster = cpu_cluster()
    of = lambda size: transport(cluster, "all_reduce", (0, 1), size)  # noqa: E731
    assert [of(1e3), of(1e6), of(1e8)] == pytest.approx([3e-4, 1e-3, 6e-2])
    assert of(1e7) == pytest.approx((1e-3 * 6e-2) ** 0.5)
    assert of(1e10) == pytest.approx(6e-2 * 60)
    assert of(1.0) == pytest.approx(3e-4)


def test_other_numbers_of_ranks_scale_the_curve():
    """1.5/1.0 by the ring, and two ranks a core instead of one."""
    cluster = cpu_cluster(ranks=4, cores=2)
    two, four = (transport(cluster, "all_reduce", range(n), 1e8) for n in (2, 4))
    assert four == pytest.approx(two * 1.5 * 2)
    roomy = cpu_cluster(ranks=4, cores=4)
    assert transport(roomy, "all_reduce", range(4), 1e8) == pytest.approx(two * 1.5)


def test_the_curve_of_the_nearest_number_of_ranks_is_taken():
    """As measured where the number is the same."""
    cluster = cpu_cluster()
    own = TransportCurve(operation="all_reduce", ranks=4, times_s=((1e6, 0.5),))
    cluster = replace(cluster, transports=(*cluster.transports, own))
    assert transport(cluster, "all_reduce", range(4), 1e6) == 0.5
    assert transport(cluster, "all_reduce", range(2), 1e6) == pytest.approx(1e-3)


def test_a_curve_from_one_node_says_nothing_of_several():
    """8 ranks measured in one node; 8 ranks on two nodes take the closed form."""
    curve = TransportCurve(operation="all_reduce", ranks=8, times_s=((1e6, 0.5),))
    cluster = gpu_cluster(transports=(curve,))
    assert transport(cluster, "all_reduce", range(8), 1e6) == 0.5
    assert transport(cluster, "all_reduce", range(4, 12), 1e6) < 0.01


def test_an_operation_may_reach_another_fraction():
    """A quarter for all-to-alls, half for the rest."""
    link = replace(NVLINK, efficiency=((1.0, 0.5),), efficiency_by_operation={"all_to_all": ((1.0, 0.25),)})
    cluster = gpu_cluster(links={"nvlink": link})
    gather, exchange = (transport(cluster, name, range(8), 8e9) for name in ("all_gather", "all_to_all"))
    assert gather == pytest.approx(7 * (2e-6 + 1e9 / 150e9))
    assert exchange == pytest.approx(2e-6 + 7e9 / 75e9)


def test_a_ring_over_nodes_is_limited_by_what_its_links_reach():
    """Eight NICs of 25 GB/s are 200 GB/s; NVLink is wider, but at half of its rate it is not."""
    slow = replace(NVLINK, efficiency_by_operation={"all_gather": ((1.0, 0.5),)})
    cluster = gpu_cluster(links={"nvlink": slow, "ib": INFINIBAND})
    way = path(cluster, range(32))
    assert (way.bandwidth, way.link.name) == (200e9, "ib")
    assert [way.effective(name, 1e9) for name in ("all_gather", "reduce_scatter")] == [150e9, 200e9]


def test_a_curve_of_one_node_is_not_taken_for_several_smaller_ones():
    """Eight ranks measured in one node say nothing of eight on two nodes of four; four do of four."""
    curves = tuple(
        TransportCurve(operation="all_reduce", ranks=n, times_s=((1e6, n * 1.0),), nodes=1) for n in (4, 8)
    )
    cluster = gpu_cluster(nodes=4, per_node=4, transports=curves)
    assert transport(cluster, "all_reduce", range(4), 1e6) == 4.0
    assert transport(cluster, "all_reduce", range(8), 1e6) < 0.01
    assert transport(cluster, "all_reduce", range(3), 1e6) == pytest.approx(
        4.0
        * transport(gpu_cluster(), "all_reduce", range(3), 1e6)
        / transport(gpu_cluster(), "all_reduce", range(4), 1e6)
    )


def test_between_two_measured_numbers_of_ranks_both_count():
    """Two ranks take 1 s and eight 3 s; four by the links 1.5 s and 18/7 s, half-way in log ranks."""
    curves = tuple(
        TransportCurve(operation="all_gather", ranks=n, times_s=((1e12, seconds),), nodes=1)
        for n, seconds in ((2, 1.0), (8, 3.0))
    )
    cluster = gpu_cluster(transports=curves)
    found = [transport(cluster, "all_gather", range(n), 1e12) for n in (2, 4, 8)]
    assert found == pytest.approx([1.0, (1.5 * 18 / 7) ** 0.5, 3.0], rel=1e-4)


def test_a_curve_over_nodes_is_scaled_by_what_the_links_take():
    """One rank a node on four nodes, measured; on two nodes as much less as the links say."""
    curve = TransportCurve(operation="all_gather", ranks=4, times_s=((1e8, 1.0),), nodes=4)
    plain, measured = gpu_cluster(), gpu_cluster(transports=(curve,))
    four, two = [0, 8, 16, 24], [0, 8]
    assert transport(measured, "all_gather", four, 1e8) == 1.0
    ratio = transport(plain, "all_gather", two, 1e8) / transport(plain, "all_gather", four, 1e8)
    assert transport(measured, "all_gather", two, 1e8) == pytest.approx(ratio)


def test_processor_time_is_measured_or_none():
    """Host-staged messages cost it; GPUs' and unmeasured ones do not."""
    assert processor_s(cpu_cluster(), SEND_RECV, (0, 1), 1e6) == pytest.approx(2e-4)
    assert processor_s(cpu_cluster(), "all_reduce", (0, 1), 1e6) == 0.0
    assert processor_s(gpu_cluster(), SEND_RECV, (0, 1), 1e6) == 0.0


@given(
    st.sampled_from(["all_reduce", "broadcast", "all_gather", "reduce_scatter", SEND_RECV]),
    st.integers(2, 32),
    st.floats(1, 1e10),
    st.floats(1, 50),
)
def test_a_better_cluster_never_hurts(operation, ranks, size, factor):
    """Each link faster, or fewer bytes, takes no longer."""
    cluster = gpu_cluster()
    links = {name: replace(k, bandwidth=k.bandwidth * factor) for name, k in cluster.links.items()}
    members = range(2) if operation == SEND_RECV else range(ranks)
    seconds = transport(cluster, operation, members, size)
    assert transport(replace(cluster, links=links), operation, members, size) <= seconds
    assert transport(cluster, operation, members, size / factor) <= seconds
    assert transport(cluster, operation, [0], size) == 0


@given(st.floats(1, 1e9), st.floats(1, 100))
def test_times_rise_with_size(size, factor):
    """Also between points and beyond them."""
    curve = ((1e3, 3e-4), (1e6, 1e-3), (1e8, 6e-2))
    assert interpolate_time(curve, size * factor) >= interpolate_time(curve, size) * (1 - 1e-12)


def test_curves_are_clamped_and_linear_in_log_x():
    """End values outside, half-way at the geometric mean."""
    curve = ((1e2, 0.2), (1e4, 0.6))
    assert [interpolate(curve, x) for x in (1.0, 1e2, 1e3, 1e4, 1e9)] == pytest.approx(
        [0.2, 0.2, 0.4, 0.6, 0.6]
    )
