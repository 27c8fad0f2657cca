"""The path a group of ranks communicates over, and the seconds a communication takes on it.

Rank r is on node r // accelerators_per_node. Inside a node ranks use the link that joins accelerators;
between nodes each uses its own NIC, or the node's, shared. Contention is static: a link is shared evenly
by all that can use it at once. A measured curve is used before any closed form.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from .cluster import Cluster, Link, TransportCurve
from .collectives import collective_s, point_to_point_s
from .curves import interpolate, interpolate_time
from .errors import InputError

SEND_RECV = "send_recv"


@dataclass(frozen=True, slots=True, kw_only=True)
class Path:
    """What joins a group of ranks, as one number for each thing a closed form asks."""

    bandwidth: float
    """bytes/s that one rank of a ring through the group sends, before the link's efficiency"""
    latency: float
    """seconds of the longest hop, one way"""
    ring_latency: float
    """seconds of the average hop of a ring through the group; most stay inside a node"""
    link: Link
    """The link that limits the bandwidth."""


def nodes_of(cluster: Cluster, ranks: Sequence[int]) -> dict[int, int]:
    """How many of ``ranks`` are on each node, nodes in order."""
    per_node = cluster.accelerators_per_node
    return Counter(rank // per_node for rank in sorted(ranks))


def path(cluster: Cluster, ranks: Sequence[int], *, sharing: int = 1) -> Path:
    """The path of a ring through ``ranks``.

    ``sharing`` is how many groups like this one cross a node's shared (`per_node`) link at the same time.
    Across nodes a group with k members in each node enters and leaves it by k NICs, as NCCL's rings do, so
    a ring reaches min(accelerator link, k x NIC).

    Raises:
        InputError: the cluster has no such link, or its wires do not join the nodes.
    """
    members = nodes_of(cluster, ranks)
    if len(members) == 1:
        link = _link(cluster, "accelerators")
        return Path(bandwidth=link.bandwidth, latency=link.latency, ring_latency=link.latency, link=link)
    per_node = min(members.values())
    between = _between_nodes(cluster, list(members), per_node, sharing)
    inside = cluster.link("accelerators")
    hops_inside = len(ranks) - len(members)
    if not hops_inside or inside is None:
        return between
    ring_latency = (hops_inside * inside.latency + len(members) * between.ring_latency) / len(ranks)
    narrow = inside if inside.bandwidth < between.bandwidth else between.link
    return Path(
        bandwidth=min(inside.bandwidth, between.bandwidth),
        latency=between.latency,
        ring_latency=ring_latency,
        link=narrow,
    )


def _link(cluster: Cluster, joins: str) -> Link:
    link = cluster.link(joins)
    if link is None:
        raise InputError(f"cluster {cluster.name} has no link that joins {joins}")
    return link


def _between_nodes(cluster: Cluster, nodes: list[int], per_node: int, sharing: int) -> Path:
    if cluster.wires:
        return _wired(cluster, nodes, per_node, sharing)
    link = _link(cluster, "nodes")
    return Path(
        bandwidth=_node_bandwidth(link, per_node, sharing),
        latency=link.latency,
        ring_latency=link.latency,
        link=link,
    )


def _node_bandwidth(link: Link, per_node: int, sharing: int) -> float:
    """What a group with ``per_node`` members in a node gets of the node's link or links."""
    return link.bandwidth / sharing if link.per_node else link.bandwidth * per_node


def _wired(cluster: Cluster, nodes: list[int], per_node: int, sharing: int) -> Path:
    """A ring over the nodes in order, each hop by its shortest route (fewest wires).

    A wire's bandwidth is shared by the hops that cross it in the same direction; parallel wires add up.
    """
    routes = [_route(cluster, a, b) for a, b in zip(nodes, [*nodes[1:], nodes[0]], strict=True)]
    crossings: dict[tuple[str, str], int] = {}
    for route in routes:
        for edge in pairwise(route):
            crossings[edge] = crossings.get(edge, 0) + 1
    wires = _wires(cluster)
    shares = [
        (_edge_bandwidth(wires[frozenset(edge)], edge, per_node, sharing) / count, wires[frozenset(edge)][0])
        for edge, count in crossings.items()
    ]
    bandwidth, link = min(shares, key=lambda share: share[0])
    latencies = [sum(wires[frozenset(edge)][0].latency for edge in pairwise(route)) for route in routes]
    return Path(
        bandwidth=bandwidth,
        latency=max(latencies),
        ring_latency=sum(latencies) / len(latencies),
        link=link,
    )


def _wires(cluster: Cluster) -> dict[frozenset[str], list[Link]]:
    """Links by the pair of ends they join, both directions."""
    wires: dict[frozenset[str], list[Link]] = {}
    for wire in cluster.wires:
        wires.setdefault(frozenset((wire.a, wire.b)), []).append(cluster.links[wire.link])
    return wires


def _edge_bandwidth(links: list[Link], edge: tuple[str, str], per_node: int, sharing: int) -> float:
    """A wire at a node is each NIC's own or the node's; a wire between switches is what it is."""
    at_node = any(end.startswith("node") for end in edge)
    if at_node:
        return sum(_node_bandwidth(link, per_node, sharing) for link in links)
    return sum(link.bandwidth for link in links)


def _route(cluster: Cluster, source: int, target: int) -> list[str]:
    import networkx

    graph = networkx.Graph()
    graph.add_edges_from((wire.a, wire.b) for wire in cluster.wires)
    ends = f"node{source}", f"node{target}"
    try:
        return networkx.shortest_path(graph, *ends)
    except (networkx.NetworkXNoPath, networkx.NodeNotFound):
        raise InputError(f"no wires of cluster {cluster.name} join {ends[0]} to {ends[1]}") from None


def transport(
    cluster: Cluster,
    operation: str,
    ranks: Sequence[int],
    size_bytes: float,
    *,
    algorithm: str = "auto",
    sharing: int = 1,
) -> float:
    """Seconds of ``operation`` (a collective or `send_recv`) on ``ranks`` with ``size_bytes``.

    A measured curve of the operation is used where the group spreads over nodes as the measured one did,
    ranks filling node after node. For another number of ranks its seconds are scaled by the ratio of the
    closed forms, and where the host's cores carry the bytes by that of the ranks a core carries.
    Anything else is the closed form at the link's efficiency for this size.
    """
    if len(ranks) < 2:
        return 0.0
    staged = is_host_staged(cluster)
    curve = measured_curve(cluster, operation, ranks)
    if curve is None:
        return _closed_form_s(cluster, operation, ranks, size_bytes, algorithm, sharing)
    seconds = interpolate_time(curve.times_s, size_bytes)
    if curve.ranks != len(ranks):
        seconds *= _ratio_of_ranks(cluster, operation, curve.ranks, ranks, size_bytes)
    if algorithm != "auto" and not staged and operation != SEND_RECV and cluster.links:
        chosen = _closed_form_s(cluster, operation, ranks, size_bytes, algorithm, sharing)
        seconds *= chosen / _closed_form_s(cluster, operation, ranks, size_bytes, "auto", sharing)
    return seconds


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


def _closed_form_s(
    cluster: Cluster, operation: str, ranks: Sequence[int], size_bytes: float, algorithm: str, sharing: int
) -> float:
    way = path(cluster, ranks, sharing=sharing)
    bandwidth = way.bandwidth * (interpolate(way.link.efficiency, size_bytes) if way.link.efficiency else 1.0)
    if operation == SEND_RECV:
        return point_to_point_s(size_bytes, bandwidth, way.latency)
    return collective_s(
        operation,
        size_bytes,
        len(ranks),
        bandwidth,
        way.ring_latency,
        algorithm=algorithm,
        tree_latency=way.latency,
        host_staged=is_host_staged(cluster),
    )
