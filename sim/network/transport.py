"""The seconds a communication of a group of ranks takes on a cluster, and by which algorithm.

A measured curve is used before any tuner, and a library's tuner before the closed forms; `paths.py` says
what the group gets of the links.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from ..hardware.cluster import Cluster, TransportCurve
from ..hardware.curves import interpolate_time
from .algorithms import (
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
from .nccl_tuner import COLLNET, NVLS, NVLS_TREE, Choice, Machine
from .nccl_tuner import choose as choose_by_nccl
from .paths import Path, is_torus, nodes_of, path, spread_path, tiers_of

__all__ = [
    "MEASURED",
    "SEND_RECV",
    "SHIFT",
    "Choice",
    "Path",
    "choose",
    "has_shifts",
    "nodes_of",
    "path",
    "processor_s",
    "ranks_of_a_core",
    "transport",
]

SEND_RECV = "send_recv"
SHIFT = "shift"
"""Every rank of a ring sends to the next while it receives from the one before: measured on hosts, where both
directions take the same core."""
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
    ranks filling node after node. For another number of ranks its seconds are scaled by the ratio of what
    the links would take, and where the host's cores carry the bytes by that of the ranks a core carries;
    between two measured numbers both count, by how near they are in log ranks. Else the cluster's library
    chooses. Anything else is the closed form at the link's efficiency for
    this size, `auto` the cheapest.

    Raises:
        InputError: an unknown operation or algorithm, or ranks that nothing joins.
    """
    if len(ranks) < 2:
        return Choice(algorithm=algorithm, protocol="", seconds=0.0)
    seconds = _measured_s(cluster, operation, ranks, size_bytes, sharing)
    if seconds is None:
        return _modelled(cluster, operation, ranks, size_bytes, algorithm, sharing)
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
    curves = _usable_curves(cluster, operation, ranks)
    curve = min(curves, key=lambda curve: (abs(curve.ranks - len(ranks)), curve.ranks), default=None)
    if curve is None or not curve.cpu_times_s:
        return 0.0
    return interpolate_time(curve.cpu_times_s, size_bytes)


def ranks_of_a_core(cluster: Cluster, ranks: Sequence[int]) -> int:
    """The most of ``ranks`` that one of their host's cores carries; 1 where each has a device of its own."""
    if cluster.host is None:
        return 1
    members = max(nodes_of(cluster, ranks).values(), default=1)
    return -(-members // min(cluster.host.cores, cluster.accelerators_per_node))


def is_host_staged(cluster: Cluster) -> bool:
    """Whether messages pass through the processor that computes."""
    return cluster.host is not None and cluster.host.host_staged


def _measured_s(
    cluster: Cluster, operation: str, ranks: Sequence[int], size: float, sharing: int
) -> float | None:
    """Seconds by the curves with the nearest numbers of ranks, fewer and more; None without any."""
    curves = _usable_curves(cluster, operation, ranks)
    fewer = max((c for c in curves if c.ranks <= len(ranks)), key=lambda c: c.ranks, default=None)
    more = min((c for c in curves if c.ranks >= len(ranks)), key=lambda c: c.ranks, default=None)
    found = [
        interpolate_time(curve.times_s, size) * _ratio_of_ranks(cluster, curve, ranks, size, sharing)
        for curve in (fewer, more)
        if curve is not None
    ]
    if fewer is None or more is None or fewer.ranks == more.ranks:
        return found[0] if found else None
    weight = math.log(len(ranks) / fewer.ranks) / math.log(more.ranks / fewer.ranks)
    return found[0] ** (1 - weight) * found[1] ** weight


def _usable_curves(cluster: Cluster, operation: str, ranks: Sequence[int]) -> list[TransportCurve]:
    """The curves of ``operation`` whose ranks lay as the group does, in one node or over several."""
    nodes = len(nodes_of(cluster, ranks))
    usable = [
        curve
        for curve in cluster.transports
        if curve.operation == operation and curve.times_s and _spreads_alike(cluster, curve, nodes)
    ]
    if operation == SEND_RECV:
        return [curve for curve in usable if curve.ranks == 2] or usable
    if not usable and operation == "reduce_scatter" and is_host_staged(cluster):
        return _usable_curves(cluster, "all_reduce", ranks)  # what gloo does instead
    return usable


def has_shifts(cluster: Cluster, ranks: Sequence[int]) -> bool:
    """Whether exchanges round a ring were measured as such on this host."""
    return is_host_staged(cluster) and bool(_usable_curves(cluster, SHIFT, ranks))


def _spreads_alike(cluster: Cluster, curve: TransportCurve, nodes: int) -> bool:
    """Whether ``curve`` was measured in one node as the group is, or over several as it is."""
    measured_nodes = _measured_nodes(cluster, curve)
    fits = curve.ranks <= measured_nodes * cluster.accelerators_per_node
    return fits and (measured_nodes == 1) == (nodes == 1)


def _measured_nodes(cluster: Cluster, curve: TransportCurve) -> int:
    return curve.nodes or -(-curve.ranks // cluster.accelerators_per_node)


def _ratio_of_ranks(
    cluster: Cluster, curve: TransportCurve, ranks: Sequence[int], size: float, sharing: int
) -> float:
    """Seconds with ``ranks`` over seconds with the measured number, by the links where they are known."""
    operation = curve.operation
    if operation == SEND_RECV or curve.ranks == len(ranks):
        return 1.0
    if cluster.links and not is_host_staged(cluster):
        few, many = (
            _modelled(cluster, operation, group, size, AUTO, sharing).seconds
            for group in (_as_measured(cluster, curve), ranks)
        )
        return many / few
    staged, ratio = is_host_staged(cluster), 1.0
    if operation != SHIFT:
        few, many = (
            collective_s(operation, size, count, 1.0, 0.0, host_staged=staged)
            for count in (curve.ranks, len(ranks))
        )
        ratio = many / few
    if cluster.host is not None and staged:
        cores = cluster.host.cores
        ratio *= max(1.0, len(ranks) / cores) / max(1.0, curve.ranks / cores)
    return ratio


def _as_measured(cluster: Cluster, curve: TransportCurve) -> list[int]:
    """Ranks that lie as those of ``curve`` did, from the first node on."""
    per_node = cluster.accelerators_per_node
    each = -(-curve.ranks // _measured_nodes(cluster, curve))
    return [rank // each * per_node + rank % each for rank in range(curve.ranks)]


def _modelled(
    cluster: Cluster, operation: str, ranks: Sequence[int], size: float, algorithm: str, sharing: int
) -> Choice:
    """By the library's tuner or the closed forms."""
    if operation == SEND_RECV:
        way = path(cluster, ranks, sharing=sharing)
        seconds = point_to_point_s(size, way.effective(operation, size), way.latency)
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
        machine = _machine(cluster, operation, ranks, way, size)
        return choose_by_nccl(operation, size, machine, _NCCL_NAMES[algorithm])
    bandwidth = way.effective(operation, size)
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
    bandwidth = way.effective(operation, size)
    seconds = collective_s(operation, size, len(ranks), bandwidth, way.ring_latency, host_staged=True)
    return Choice(algorithm=HOST_STAGED, protocol="", seconds=seconds)


def _spread(
    cluster: Cluster, operation: str, ranks: Sequence[int], size: float, algorithm: str, sharing: int
) -> Choice:
    """Collectives in which each rank uses its own NIC: all-to-alls, and algorithms with far partners."""
    if algorithm == HIERARCHICAL:
        return _hierarchical(cluster, operation, ranks, size, sharing)
    way = spread_path(cluster, ranks, sharing=sharing)
    bandwidth = way.effective(operation, size)
    seconds = collective_s(operation, size, len(ranks), bandwidth, way.latency, algorithm=algorithm)
    return Choice(algorithm=DIRECT if algorithm == AUTO else algorithm, protocol="", seconds=seconds)


def _hierarchical(
    cluster: Cluster, operation: str, ranks: Sequence[int], size: float, sharing: int
) -> Choice:
    """Tier by tier, all at the efficiency of the link that limits the whole."""
    way = path(cluster, ranks, sharing=sharing)
    reached = way.effective(operation, size) / way.bandwidth
    tiers = tuple(
        replace(tier, bandwidth=tier.bandwidth * reached)
        for tier in tiers_of(cluster, ranks, sharing=sharing)
    )
    return Choice(algorithm=HIERARCHICAL, protocol="", seconds=hierarchical_s(operation, size, tiers))


def _machine(cluster: Cluster, operation: str, ranks: Sequence[int], way: Path, size: float) -> Machine:
    """The ranks as NCCL's tuner sees them."""
    inside, between = cluster.link("accelerators"), cluster.link("nodes")
    return Machine(
        ranks=len(ranks),
        nodes=len(nodes_of(cluster, ranks)),
        bandwidth=way.effective(operation, size),
        network_s=way.latency,
        nvls=inside is not None and inside.in_network,
        collnet=between is not None and between.in_network,
    )
