"""Flows end when SimGrid says, to the last digits: random traffic on fat-trees, dragonflies and tori."""

from __future__ import annotations

import numpy as np
import pytest
import simgrid_oracle

from traincast.sim.network.fabrics import dragonfly as dragonflies
from traincast.sim.network.fabrics import fat_tree as fat_trees
from traincast.sim.network.fabrics.fabric import Fabric
from traincast.sim.network.fabrics.torus import torus
from traincast.sim.network.flows.flows import Flows, Network, finish_times, flows_on

SAME = 1e-12
"""Relative difference of two finish times that are the same."""


@pytest.fixture(scope="module")
def simgrid(tmp_path_factory):
    built = simgrid_oracle.program(tmp_path_factory.mktemp("simgrid"))
    if built is None:
        pytest.skip("SimGrid (Debian's libsimgrid-dev) or g++ is not installed")
    return built


def fabric(kind: str, latency: float) -> Fabric:
    speed = {"bandwidth": 1e9, "latency": latency}
    trunked = {**speed, "trunk_bandwidth": 7e8, "trunk_latency": 5 * latency}
    if kind == "fat_tree":
        return fat_trees.fat_tree(fat_trees.Shape(hosts=128, radix=8, pod=4, oversubscription=2.0), **trunked)
    if kind == "dragonfly":
        return dragonflies.dragonfly(dragonflies.Shape(groups=9, routers=4, hosts_per_router=2), **trunked)
    return torus((4, 5, 3), **speed)


def traffic(net: Fabric, count: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(sources, targets, sizes in whole bytes) at random; no host sends to itself."""
    random = np.random.default_rng(seed)
    sources = random.integers(0, net.hosts, count)
    targets = (sources + random.integers(1, net.hosts, count)) % net.hosts
    return sources, targets, np.ceil(random.exponential(1e8, count))


def by_round_trip(flows: Flows, network: Network) -> Flows:
    """The same flows, weighed by one over their latency, as CM02 does."""
    route = np.repeat(np.arange(len(flows)), np.diff(flows.offsets))
    latency = np.bincount(route, network.latency[flows.links], minlength=len(flows))
    return Flows(
        offsets=flows.offsets,
        links=flows.links,
        sizes=flows.sizes,
        starts=flows.starts,
        weights=1 / latency,
    )


def worst(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.max(np.abs(found - expected) / expected))


@pytest.mark.parametrize("kind", ["fat_tree", "dragonfly", "torus"])
@pytest.mark.parametrize("spread_s", [0.0, 0.5])
def test_every_flow_ends_when_simgrid_says(simgrid, kind, spread_s):
    """Without latencies all flows weigh the same; starting at once, or spread over half a second."""
    net = fabric(kind, 0.0)
    for seed, count in ((1, 60), (2, 600)):
        sources, targets, sizes = traffic(net, count, seed)
        starts = np.random.default_rng(seed).uniform(0, 1, count) * spread_s
        flows, network = flows_on(net, sources, targets, sizes, starts)
        expected, _ = simgrid_oracle.finish_times(simgrid, net.hosts, (sources, targets), flows, network)
        assert worst(finish_times(flows, network), expected) < SAME


@pytest.mark.parametrize("kind", ["fat_tree", "dragonfly", "torus"])
@pytest.mark.parametrize("latency", [1e-6, 1e-2])
def test_latency_is_paid_first_and_weighs(simgrid, kind, latency):
    """CM02's share is inversely proportional to a route's latency."""
    net = fabric(kind, latency)
    sources, targets, sizes = traffic(net, 300, 3)
    flows, network = flows_on(net, sources, targets, sizes)
    flows = by_round_trip(flows, network)
    expected, _ = simgrid_oracle.finish_times(simgrid, net.hosts, (sources, targets), flows, network)
    assert worst(finish_times(flows, network), expected) < SAME


def test_equal_sizes_end_together_as_in_simgrid(simgrid):
    """Many ends at one moment, and equal rates on many links."""
    net = fabric("fat_tree", 0.0)
    sources, targets, _ = traffic(net, 500, 4)
    flows, network = flows_on(net, sources, targets, 1e8)
    expected, _ = simgrid_oracle.finish_times(simgrid, net.hosts, (sources, targets), flows, network)
    assert worst(finish_times(flows, network), expected) < SAME
