"""Fabrics: every route is a connected way, spreads as it should, and costs what contention says."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from machines import INFINIBAND, NVLINK, gpu_cluster

from traincast.sim.errors import InputError
from traincast.sim.hardware.cluster import FabricSpec, Link
from traincast.sim.network.fabrics import dragonfly as dragonflies
from traincast.sim.network.fabrics import fat_tree as fat_trees
from traincast.sim.network.fabrics import rail as rails
from traincast.sim.network.fabrics.build import fabric_of
from traincast.sim.network.fabrics.fabric import CROSSBAR, PORT, TRUNK, WAN, Fabric
from traincast.sim.network.fabrics.group import all_pairs_reach, ring_reach
from traincast.sim.network.fabrics.nodes import Crossbar, nodes
from traincast.sim.network.fabrics.switch import switch
from traincast.sim.network.fabrics.tiers import tiers
from traincast.sim.network.fabrics.torus import torus
from traincast.sim.network.fabrics.wan import wan
from traincast.sim.network.transport import path, transport

SPEED = {"bandwidth": 10.0, "latency": 1.0}
TRUNKED = {**SPEED, "trunk_bandwidth": 10.0, "trunk_latency": 2.0}


def tree(**changes) -> Fabric:
    return fat_trees.fat_tree(fat_trees.Shape(**{"hosts": 32, "radix": 4, **changes}), **TRUNKED)


def fabrics() -> dict[str, Fabric]:
    """One small fabric of every kind."""
    crossbar = Crossbar(accelerators=4, bandwidth=100.0, latency=0.5)
    rail = rails.rail(rails.Shape(nodes=8, rails=4, radix=2), **TRUNKED)
    return {
        "switch": switch(16, **SPEED),
        "fat_tree": tree(),
        "three_tiers": tree(pod=2, oversubscription=2.0),
        "rail": rail,
        "rail_nodes": nodes(crossbar, rail, rails=True),
        "tree_nodes": nodes(crossbar, tree()),
        "port_per_node": nodes(crossbar, tree(hosts=8), port_per_node=True),
        "dragonfly": dragonflies.dragonfly(
            dragonflies.Shape(groups=9, routers=4, hosts_per_router=2), **TRUNKED
        ),
        "dragonfly_lanes": dragonflies.dragonfly(
            dragonflies.Shape(groups=4, routers=4, hosts_per_router=2, parallel=4, rails=2), **TRUNKED
        ),
        "ring": torus((8,), **SPEED),
        "torus": torus((4, 3, 5), **SPEED),
        "wan": wan(switch(8, **SPEED), 3, bandwidth=1.0, latency=50.0),
        "wan_of_trees": wan(tree(hosts=8), 3, bandwidth=1.0, latency=50.0),
    }


def all_pairs(fabric: Fabric) -> tuple[np.ndarray, np.ndarray]:
    hosts = np.arange(fabric.hosts)
    return np.repeat(hosts, fabric.hosts), np.tile(hosts, fabric.hosts)


def route(fabric: Fabric, source: int, target: int) -> list[int]:
    _, links = fabric.routes(np.array([source]), np.array([target]))
    return links.tolist()


@pytest.mark.parametrize("name", sorted(set(fabrics()) - {"wan_of_trees"}))
def test_every_link_leads_from_one_place_to_one_place(name):
    """The end of a link is the start of the next: no link follows, or is followed by, links of two places.

    Places are not named in a fabric, so two links that ever follow one are taken to start at one place,
    and then no route may visit a place twice. (Zones of trees leave out what is between leaf and gateway.)
    """
    fabric = fabrics()[name]
    offsets, links = fabric.routes(*all_pairs(fabric))
    place = _places(fabric, offsets, links)
    for start, stop in pairwise(offsets):
        visited = [place[f"out{link}"] for link in links[start:stop]]
        assert len(set(visited)) == len(visited)


def _places(fabric: Fabric, offsets: np.ndarray, links: np.ndarray) -> dict[str, str]:
    import networkx

    graph = networkx.Graph()
    graph.add_nodes_from(f"{side}{link}" for side in ("in", "out") for link in range(fabric.links))
    inner = np.ones(len(links), bool)
    inner[offsets[:-1][np.diff(offsets) > 0]] = False
    for link in np.flatnonzero(inner):
        graph.add_edge(f"in{links[link - 1]}", f"out{links[link]}")
    return {end: min(part) for part in networkx.connected_components(graph) for end in part}


@pytest.mark.parametrize("name", sorted(fabrics()))
def test_hosts_reach_each_other_and_themselves_for_nothing(name):
    """Every pair has links, in both directions as many; a host needs none to itself."""
    fabric = fabrics()[name]
    sources, targets = all_pairs(fabric)
    lengths = np.diff(fabric.routes(sources, targets)[0])
    assert ((lengths == 0) == (sources == targets)).all()
    if name != "dragonfly_lanes":  # there the way back may be by another global link
        assert (lengths == np.diff(fabric.routes(targets, sources)[0])).all()
    assert len(fabric.link_bandwidth) == len(fabric.link_latency) == len(fabric.link_kind)


def test_distances_are_those_of_the_textbooks():
    """Diameters: switch 2, two tiers 4, three 6, dragonfly 5, a torus half of each axis."""
    found = {
        name: int(np.diff(fabric.routes(*all_pairs(fabric))[0]).max()) for name, fabric in fabrics().items()
    }
    assert found == {
        "switch": 2,
        "fat_tree": 4,
        "three_tiers": 6,
        "rail": 4,
        "rail_nodes": 6,
        "tree_nodes": 4,
        "port_per_node": 4,
        "dragonfly": 5,
        "dragonfly_lanes": 5,
        "ring": 4,
        "torus": 2 + 1 + 2,
        "wan": 3,
        "wan_of_trees": 4,
    }


def test_d_mod_k_spreads_a_shift_over_all_uplinks():
    """A permutation that leaves every leaf loads each link of a full fat-tree once."""
    fabric = tree()
    hosts = np.arange(32)
    _, links = fabric.routes(hosts, (hosts + 4) % 32)
    assert np.bincount(links, minlength=fabric.links).tolist() == [1] * fabric.links
    thin = tree(oversubscription=2.0)
    _, links = thin.routes(hosts, (hosts + 4) % 32)
    assert np.bincount(links, minlength=thin.links).max() == 2


def test_rails_meet_inside_nodes():
    """To another rail of another node: over the crossbar first, then two hops on the target's own leaf."""
    fabric = fabrics()["rail_nodes"]
    kinds = fabric.link_kind[route(fabric, 0, 5)].tolist()
    assert kinds == [CROSSBAR, CROSSBAR, PORT, PORT]
    assert fabric.link_kind[route(fabric, 1, 5)].tolist() == [PORT, PORT]
    assert fabric.link_kind[route(fabric, 0, 3)].tolist() == [CROSSBAR, CROSSBAR]


def test_a_dragonfly_takes_the_one_global_link_between_groups():
    """All pairs of two groups share it."""
    fabric = fabrics()["dragonfly"]
    sources, targets = np.repeat(np.arange(8), 8), np.tile(np.arange(8, 16), 8)
    _, links = fabric.routes(sources, targets)
    assert np.bincount(links).max() == 64
    fabric = fabrics()["dragonfly_lanes"]
    _, links = fabric.routes(sources, targets)
    crossed = links[fabric.link_kind[links] == TRUNK]
    across = crossed[crossed >= fabric.links - 4 * 4 * 4]
    assert sorted(np.unique(across, return_counts=True)[1].tolist()) == [16] * 4


def test_a_torus_goes_the_shorter_way_round():
    """Forward at a tie."""
    ring = torus((8,), **SPEED)
    assert route(ring, 0, 4) == [0, 2, 4, 6]
    assert route(ring, 0, 6) == [1, 15]


def test_zones_are_joined_by_their_own_link():
    """Up, across and down; inside a zone as without zones."""
    fabric = fabrics()["wan_of_trees"]
    assert fabric.link_kind[route(fabric, 0, 9)].tolist() == [PORT, WAN, PORT]
    assert route(fabric, 0, 5) == route(tree(hosts=8), 0, 5)
    assert fabric.latencies(fabric.steps(np.array([0]), np.array([9]))).tolist() == [52.0]


def test_strangers_are_refused():
    with pytest.raises(InputError, match="of 16"):
        switch(16, **SPEED).routes(np.array([0]), np.array([16]))


def test_a_hundred_thousand_hosts_are_arrays():
    """Three tiers of NVSwitch nodes; nothing grows but the links."""
    shape = fat_trees.Shape(hosts=100_000, radix=32, pod=32)
    fabric = nodes(Crossbar(accelerators=8, bandwidth=1.0, latency=1.0), fat_trees.fat_tree(shape, **TRUNKED))
    hosts = np.arange(fabric.hosts)
    offsets, links = fabric.routes(hosts, np.roll(hosts, -8))
    assert (offsets.dtype, links.dtype) == (np.int64, np.int32)
    assert len(links) == offsets[-1] >= 2 * fabric.hosts
    assert fabric.links < 1_000_000


def test_rings_share_what_they_cross():
    """Neighbours climb out of their leaf once; hosts dealt to leaves in turn all climb, on half the links."""
    thin = tree(oversubscription=4.0)
    assert ring_reach(thin, np.arange(32), 1).bandwidth == 10
    assert ring_reach(thin, np.arange(0, 32, 2), 2, sharing=2).bandwidth == 5
    assert ring_reach(tree(), np.arange(0, 32, 2), 2, sharing=2).bandwidth == 10


def test_all_to_all_feels_oversubscription():
    """Of 31 partners 28 are behind an uplink that four hosts share: 31/28 of a quarter of the port."""
    assert all_pairs_reach(tree(), np.arange(32), 1).bandwidth == pytest.approx(10)
    thin = all_pairs_reach(tree(oversubscription=4.0), np.arange(32), 1)
    assert thin.bandwidth == pytest.approx(10 / 4 * 31 / 28)


def test_tiers_are_the_levels_that_cut_a_group_evenly():
    """Members of a leaf, leaves of a pod, pods; the axes of a torus."""
    fabric = tree(pod=2)
    assert [tier.ranks for tier in tiers(fabric, np.arange(32), 1)] == [4, 2, 4]
    assert [tier.ranks for tier in tiers(fabric, np.arange(0, 32, 4), 1)] == [2, 4]
    assert [tier.ranks for tier in tiers(fabric, np.arange(3), 1)] == [3]
    cube = torus((4, 3, 5), **SPEED)
    found = tiers(cube, np.arange(60), 1)
    assert [(tier.ranks, tier.bandwidth, tier.latency) for tier in found] == [
        (5, 10, 1),
        (3, 10, 1),
        (4, 10, 1),
    ]


# With clusters

LEAF_UP = Link(name="trunk", joins="switches", bandwidth=10e9, latency=1e-6)
FAR = Link(name="far", joins="zones", bandwidth=1e9, latency=1e-2)


def cluster(kind: str, node_count: int = 4, per_node: int = 8, **changes):
    links = {"nvlink": NVLINK, "ib": INFINIBAND, "trunk": LEAF_UP, "far": FAR}
    fabric = FabricSpec(kind=kind, **changes)
    return gpu_cluster(nodes=node_count, per_node=per_node, links=links, fabric=fabric)


@settings(max_examples=40)
@given(st.sampled_from([range(32), range(0, 32, 8), range(4, 12), (0, 8), (3, 29)]), st.integers(1, 8))
def test_a_switch_is_what_a_cluster_has_without_a_fabric(ranks, sharing):
    """To the last digit but rounding: bandwidth, latency, and the link that limits."""
    with_fabric = cluster("switch")
    plain, built = (path(c, ranks, sharing=sharing) for c in (replace(with_fabric, fabric=None), with_fabric))
    assert built.bandwidth == pytest.approx(plain.bandwidth)
    assert built.latency == pytest.approx(plain.latency)
    assert built.ring_latency == pytest.approx(plain.ring_latency)
    assert built.link == plain.link


def test_a_narrow_trunk_limits_groups_that_cross_it():
    """Leaves of 16 hosts with 4 uplinks of 10 GB/s: eight rings cross on four links, two on each."""
    narrow = cluster("fat_tree", radix=16, oversubscription=4.0, trunk="trunk")
    across, inside = path(narrow, range(32)), path(narrow, range(16))
    assert (across.bandwidth, across.link.name) == (8 / 2 * 10e9, "trunk")
    assert inside.bandwidth == 8 * 25e9
    assert path(narrow, [0, 16]).latency == pytest.approx(5e-6 + 2 * 1e-6)


def test_zones_cost_their_distance():
    """10 ms each way, and 1 GB/s for everybody."""
    zones = cluster("wan", groups=2)
    assert path(zones, [0, 16]).latency == pytest.approx(1e-2 + 5e-6)
    assert (path(zones, range(32)).bandwidth, path(zones, range(32)).link.name) == (1e9, "far")
    assert path(zones, range(16)).bandwidth == 8 * 25e9


def test_a_torus_joins_all_accelerators():
    """Also those of one node; each ring of an axis has its own links."""
    cube = cluster("torus", per_node=4, dimensions=(4, 4))
    assert path(cube, range(4)).link.name == "ib"
    whole = transport(cube, "all_reduce", range(16), 1e9, algorithm="hierarchical")
    rings = 2 * 3 * (5e-6 + 1e9 / 4 / 25e9) + 2 * 3 * (5e-6 + 1e9 / 16 / 25e9)
    assert whole == pytest.approx(rings)


@pytest.mark.parametrize(
    ("kind", "changes", "found"),
    [
        ("torus", {"dimensions": (5, 5)}, "a torus of 5 x 5 has 25 hosts, the cluster 32"),
        ("dragonfly", {"groups": 2, "routers": 2, "radix": 2}, "has 8 hosts, the cluster 32"),
        ("wan", {"groups": 3}, "4 nodes cannot be dealt to 3 zones"),
        ("fat_tree", {"radix": 4, "trunk": "none"}, "no link none"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(kind, changes, found):
    with pytest.raises(InputError, match=found):
        fabric_of(cluster(kind, **changes))
