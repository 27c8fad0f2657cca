"""The seconds a communication of a group of ranks takes on a cluster, and by which algorithm.

A measured curve is used before any tuner, and a library's tuner before the closed forms; `paths.py` says
what the group gets of the links.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from .cluster import Cluster, TransportCurve
from .collectives import (
    AUTO,
    HIERARCHICAL,
    HOST_STAGED,
    IN_NETWORK,
    RING,
    TREE,
    cheapest,
    check_names,
    collective_s,
    hierarchical_s,
    point_to_point_s,
)
from .curves import interpolate, interpolate_time
from .paths import Path, is_torus, nodes_of, path, spread_path, tiers_of
from .protocols import COLLNET, NVLS, NVLS_TREE, Choice, Machine
from .protocols import choose as choose_by_nccl

__all__ = [
    "MEASURED",
    "SEND_RECV",
    "Choice",
    "Path",
    "choose",
    "nodes_of",
    "path",
    "processor_s",
    "transport",
]

SEND_RECV = "send_recv"
MEASURED, DIRECT = "measured", "direct"

_ALONG_RINGS = (AUTO, RING, TREE, IN_NETWORK)
"""Algorithms that cross each pair of nodes by all NICs of a node together; in the others each rank uses its
own."""

_NCCL_NAMES = {RING: (RING,), TREE: (TREE,), IN_NETWORK: (NVLS, NVLS_TREE, COLLNET), AUTO: ()}
"""What NCCL calls the algorithms it has."""


def transport(
    cluster: Cluster,
    operation: str,
    ranks: Sequence[int],
    size_bytes: float,
    *,
    algorithm: str = AUTO,
    sharing: int = 1,
) -> float:
    """Seconds of ``operation`` (a collective or `send_recv`) on ``ranks`` with ``size_bytes``.

    ``sharing`` is how many groups like this one communicate at the same time. See `choose`.
    """
    return choose(cluster, operation, ranks, size_bytes, algorithm=algorithm, sharing=sharing).seconds


def choose(
    cluster: Cluster,
    operation: str,
    ranks: Sequence[int],
    size_bytes: float,
    *,
    algorithm: str = AUTO,
    sharing: int = 1,
) -> Choice:
    """The algorithm and protocol that ``operation`` takes, and its seconds.

    A measured curve of the operation is used where the group spreads over nodes as the measured one did,
    ranks filling node after node. For another number of ranks its seconds are scaled by the ratio of the
    closed forms, and where the host's cores carry the bytes by that of the ranks a core carries.
    Else the cluster's library chooses. Anything else is the closed form at the link's efficiency for
    this size, `auto` the cheapest.

    Raises:
        InputError: an unknown operation or algorithm, or ranks that nothing joins.
    """
    if len(ranks) < 2:
        return Choice(algorithm=algorithm, protocol="", seconds=0.0)
    curve = measured_curve(cluster, operation, ranks)
    if curve is None:
        return _modelled(cluster, operation, ranks, size_bytes, algorithm, sharing)
    seconds = interpolate_time(curve.times_s, size_bytes)
    if curve.ranks != len(ranks):
        seconds *= _ratio_of_ranks(cluster, operation, curve.ranks, ranks, size_bytes)
    if algorithm != AUTO and not is_host_staged(cluster) and operation != SEND_RECV and cluster.links:
        chosen = _modelled(cluster, operation, ranks, size_bytes, algorithm, sharing)
        usual = _modelled(cluster, operation, ranks, size_bytes, AUTO, sharing)
        return Choice(
            algorithm=algorithm, protocol=chosen.protocol, seconds=seconds * chosen.seconds / usual.seconds
        )
    return Choice(algorithm=MEASURED, protocol="", seconds=seconds)


def processor_s(cluster: Cluster, operation: str, ranks: Sequence[int], size_bytes: float) -> float:
    """Processor seconds each rank spends on a host-staged communication, as measured; else 0."""
    if len(ranks) < 2 or not is_host_staged(cluster):
        return 0.0
    curve = measured_curve(cluster, operation, ranks)
    if curve is None or not curve.cpu_times_s:
        return 0.0
    return interpolate_time(curve.cpu_times_s, size_bytes)


def is_host_staged(cluster: Cluster) -> bool:
    """Whether messages pass through the processor that computes."""
    return cluster.host is not None and cluster.host.host_staged


def measured_curve(cluster: Cluster, operation: str, ranks: Sequence[int]) -> TransportCurve | None:
    """The curve of ``operation`` with the nearest number of ranks, if the group lies like that one did."""
    nodes = len(nodes_of(cluster, ranks))
    usable = [
        curve
        for curve in cluster.transports
        if curve.operation == operation and curve.times_s and _spreads_alike(cluster, curve.ranks, nodes)
    ]
    if operation == SEND_RECV:
        usable = [curve for curve in usable if curve.ranks == 2] or usable
    return min(usable, key=lambda curve: (abs(curve.ranks - len(ranks)), curve.ranks), default=None)


def _spreads_alike(cluster: Cluster, measured_ranks: int, nodes: int) -> bool:
    measured_nodes = -(-measured_ranks // cluster.accelerators_per_node)
    return (measured_nodes == 1) == (nodes == 1)


def _ratio_of_ranks(
    cluster: Cluster, operation: str, measured_ranks: int, ranks: Sequence[int], size_bytes: float
) -> float:
    """Seconds with ``ranks`` over seconds with the measured number, on a path that is otherwise alike."""
    if operation == SEND_RECV:
        return 1.0
    staged = is_host_staged(cluster)
    few, many = (
        collective_s(operation, size_bytes, count, 1.0, 0.0, host_staged=staged)
        for count in (measured_ranks, len(ranks))
    )
    ratio = many / few
    if cluster.host is not None and staged:
        cores = cluster.host.cores
        ratio *= max(1.0, len(ranks) / cores) / max(1.0, measured_ranks / cores)
    return ratio


def _modelled(
    cluster: Cluster, operation: str, ranks: Sequence[int], size: float, algorithm: str, sharing: int
) -> Choice:
    """By the library's tuner or the closed forms."""
    if operation == SEND_RECV:
        way = path(cluster, ranks, sharing=sharing)
        seconds = point_to_point_s(size, _effective(way, size), way.latency)
        return Choice(algorithm=DIRECT, protocol="", seconds=seconds)
    check_names(operation, algorithm)
    if is_host_staged(cluster):
        return _host_staged(cluster, operation, ranks, size, sharing)
    if algorithm == AUTO and operation != "all_to_all" and is_torus(cluster):
        # Trees have no place on a torus; a ring through all, or rings along one axis after the other.
        ways = [_modelled(cluster, operation, ranks, size, name, sharing) for name in (RING, HIERARCHICAL)]
        return min(ways, key=lambda choice: choice.seconds)
    if algorithm not in _ALONG_RINGS or operation == "all_to_all":
        return _spread(cluster, operation, ranks, size, algorithm, sharing)
    way = path(cluster, ranks, sharing=sharing)
    if cluster.library == "nccl" and algorithm in _NCCL_NAMES:
        return choose_by_nccl(operation, size, _machine(cluster, ranks, way, size), _NCCL_NAMES[algorithm])
    bandwidth = _effective(way, size)
    if algorithm == AUTO:
        hops = (way.ring_latency, way.latency)
        seconds, name = cheapest(operation, size, len(ranks), bandwidth, hops, in_network=way.link.in_network)
        return Choice(algorithm=name, protocol="", seconds=seconds)
    seconds = collective_s(
        operation,
        size,
        len(ranks),
        bandwidth,
        way.ring_latency,
        algorithm=algorithm,
        tree_latency=way.latency,
    )
    return Choice(algorithm=algorithm, protocol="", seconds=seconds)


def _host_staged(cluster: Cluster, operation: str, ranks: Sequence[int], size: float, sharing: int) -> Choice:
    way = path(cluster, ranks, sharing=sharing)
    seconds = collective_s(
        operation, size, len(ranks), _effective(way, size), way.ring_latency, host_staged=True
    )
    return Choice(algorithm=HOST_STAGED, protocol="", seconds=seconds)


def _spread(
    cluster: Cluster, operation: str, ranks: Sequence[int], size: float, algorithm: str, sharing: int
) -> Choice:
    """Collectives in which each rank uses its own NIC: all-to-alls, and algorithms with far partners."""
    if algorithm == HIERARCHICAL:
        return _hierarchical(cluster, operation, ranks, size, sharing)
    way = spread_path(cluster, ranks, sharing=sharing)
    seconds = collective_s(
        operation, size, len(ranks), _effective(way, size), way.latency, algorithm=algorithm
    )
    return Choice(algorithm=DIRECT if algorithm == AUTO else algorithm, protocol="", seconds=seconds)


def _hierarchical(
    cluster: Cluster, operation: str, ranks: Sequence[int], size: float, sharing: int
) -> Choice:
    """Tier by tier, all at the efficiency of the link that limits the whole."""
    way = path(cluster, ranks, sharing=sharing)
    reached = _effective(way, size) / way.bandwidth
    tiers = tuple(
        replace(tier, bandwidth=tier.bandwidth * reached)
        for tier in tiers_of(cluster, ranks, sharing=sharing)
    )
    return Choice(algorithm=HIERARCHICAL, protocol="", seconds=hierarchical_s(operation, size, tiers))


def _machine(cluster: Cluster, ranks: Sequence[int], way: Path, size: float) -> Machine:
    """The ranks as NCCL's tuner sees them."""
    inside, between = cluster.link("accelerators"), cluster.link("nodes")
    return Machine(
        ranks=len(ranks),
        nodes=len(nodes_of(cluster, ranks)),
        bandwidth=_effective(way, size),
        network_s=way.latency,
        nvls=inside is not None and inside.in_network,
        collnet=between is not None and between.in_network,
    )


def _effective(way: Path, size_bytes: float) -> float:
    """bytes/s of the path at the efficiency its link has for this size."""
    reached = interpolate(way.link.efficiency, size_bytes) if way.link.efficiency else 1.0
    return way.bandwidth * reached
