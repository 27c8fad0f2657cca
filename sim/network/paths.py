"""The path a group of ranks communicates over: what joins them, and what of it they get.

Rank r is on node r // accelerators_per_node. Inside a node ranks use the link that joins accelerators;
between nodes each uses its own NIC, or the node's, shared. Contention is static: a link is shared evenly
by all that can use it at once. Networks are one ideal switch, explicit wires, or a fabric by a builder.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from ..errors import InputError
from ..hardware.cluster import Cluster, Link
from ..hardware.curves import interpolate
from .algorithms import Tier


@dataclass(frozen=True, slots=True, kw_only=True)
class Path:
    """What joins a group of ranks, as one number for each thing a closed form asks."""

    bandwidth: float
    """bytes/s that one rank of a ring through the group sends, before the links' efficiencies"""
    latency: float
    """seconds of the longest hop, one way"""
    ring_latency: float
    """seconds of the average hop of a ring through the group; most stay inside a node"""
    link: Link
    """The link that limits the bandwidth, before efficiencies."""
    also: tuple[float, Link] | None = None
    """(bytes/s, link) of the other kind of link that is crossed; its efficiency may make it the limit."""

    def effective(self, operation: str, size_bytes: float) -> float:
        """bytes/s at the efficiency that the links have for ``operation`` and ``size_bytes``."""
        reached = self.bandwidth * _reached(self.link, operation, size_bytes)
        if self.also is None:
            return reached
        bandwidth, link = self.also
        return min(reached, bandwidth * _reached(link, operation, size_bytes))


def _reached(link: Link, operation: str, size_bytes: float) -> float:
    """Fraction of the bandwidth of ``link`` that ``operation`` gets."""
    curve = link.efficiency_of(operation)
    return interpolate(curve, size_bytes) if curve else 1.0


def nodes_of(cluster: Cluster, ranks: Sequence[int]) -> dict[int, int]:
    """How many of ``ranks`` are on each node, nodes in order."""
    nodes, counts = np.unique(np.asarray(ranks) // cluster.accelerators_per_node, return_counts=True)
    return dict(zip(nodes.tolist(), counts.tolist(), strict=True))


def path(cluster: Cluster, ranks: Sequence[int], *, sharing: int = 1) -> Path:
    """The path of a ring through ``ranks``.

    ``sharing`` is how many groups like this one cross a node's shared (`per_node`) link at the same time.
    Across nodes a group with k members in each node enters and leaves it by k NICs, as NCCL's rings do, so
    a ring reaches min(accelerator link, k x NIC).

    Raises:
        InputError: the cluster has no such link, or its wires do not join the nodes.
    """
    members = nodes_of(cluster, ranks)
    torus = is_torus(cluster)
    if len(members) == 1 and not torus:
        link = _link(cluster, "accelerators")
        return Path(bandwidth=link.bandwidth, latency=link.latency, ring_latency=link.latency, link=link)
    if cluster.fabric is not None:
        between = _on_fabric(cluster, ranks, sharing)
    else:
        between = _between_nodes(cluster, list(members), min(members.values()), sharing)
    inside = None if torus else cluster.link("accelerators")
    hops_inside = len(ranks) - len(members)
    if not hops_inside or inside is None:
        return between
    ring_latency = (hops_inside * inside.latency + len(members) * between.ring_latency) / len(ranks)
    return _narrower((inside.bandwidth, inside), between, ring_latency)


def _narrower(inside: tuple[float, Link], between: Path, ring_latency: float) -> Path:
    """The path that crosses both, limited by the narrower one."""
    outside = between.bandwidth, between.link
    (bandwidth, link), also = (inside, outside) if inside[0] < outside[0] else (outside, inside)
    return Path(bandwidth=bandwidth, latency=between.latency, ring_latency=ring_latency, link=link, also=also)


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


def _on_fabric(cluster: Cluster, ranks: Sequence[int], sharing: int) -> Path:
    """The rings of the group and of the others, laid on the links of the fabric."""
    from .fabrics.build import fabric_of
    from .fabrics.group import ring_reach

    reach = ring_reach(fabric_of(cluster), np.asarray(ranks), _crossbar_size(cluster), sharing)
    return Path(
        bandwidth=reach.bandwidth,
        latency=reach.longest_s,
        ring_latency=reach.average_s,
        link=link_of_kind(cluster, reach.kind),
    )


def _crossbar_size(cluster: Cluster) -> int:
    """Accelerators that reach each other without the fabric."""
    return 1 if is_torus(cluster) else cluster.accelerators_per_node


def is_torus(cluster: Cluster) -> bool:
    """Whether accelerators are joined to their neighbours, also those of one node."""
    return cluster.fabric is not None and cluster.fabric.kind == "torus"


def link_of_kind(cluster: Cluster, kind: int) -> Link:
    """The cluster's link that a fabric's link of ``kind`` (as in `fabrics/fabric.py`) stands for."""
    from .fabrics.fabric import CROSSBAR, TRUNK, WAN

    assert cluster.fabric is not None
    if kind == TRUNK and cluster.fabric.trunk:
        return cluster.links[cluster.fabric.trunk]
    return _link(cluster, {CROSSBAR: "accelerators", WAN: "zones"}.get(kind, "nodes"))


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


def spread_path(cluster: Cluster, ranks: Sequence[int], *, sharing: int = 1) -> Path:
    """The path of a group whose members all send to all others, each over its own NIC.

    Its bandwidth is what one rank sends, counted over all it sends: what stays inside its node does not
    cross the NIC. On a fabric the flows of all pairs are laid on the links.

    Raises:
        InputError: as `path`.
    """
    way = path(cluster, ranks, sharing=sharing)
    members = nodes_of(cluster, ranks)
    torus = is_torus(cluster)
    if len(members) == 1 and not torus:
        return way
    if cluster.fabric is not None:
        return _all_pairs(cluster, ranks, sharing, way)
    inside = cluster.link("accelerators")
    count, most = len(ranks), max(members.values())
    own = _own_bandwidth(cluster, way, most, sharing) * (count - 1) / (count - most)
    between = replace(way, bandwidth=own, link=_outside(cluster, way), also=None)
    if inside is None:
        return replace(between, ring_latency=way.latency)
    return _narrower((inside.bandwidth, inside), between, way.latency)


def _outside(cluster: Cluster, way: Path) -> Link:
    """The link between nodes of a path that may be limited by another."""
    return way.link if cluster.wires else _link(cluster, "nodes")


def _own_bandwidth(cluster: Cluster, way: Path, per_node: int, sharing: int) -> float:
    """bytes/s of one rank's NIC, or of its share of the node's."""
    if cluster.wires:
        return way.bandwidth / per_node
    link = _link(cluster, "nodes")
    return link.bandwidth / (per_node * sharing) if link.per_node else link.bandwidth


def _all_pairs(cluster: Cluster, ranks: Sequence[int], sharing: int, way: Path) -> Path:
    from .fabrics.build import fabric_of
    from .fabrics.group import all_pairs_reach

    reach = all_pairs_reach(fabric_of(cluster), np.asarray(ranks), _crossbar_size(cluster), sharing)
    return replace(
        way,
        bandwidth=reach.bandwidth,
        latency=reach.longest_s,
        ring_latency=reach.longest_s,
        link=link_of_kind(cluster, reach.kind),
        also=None,
    )


def tiers_of(cluster: Cluster, ranks: Sequence[int], *, sharing: int = 1) -> tuple[Tier, ...]:
    """The tiers that a hierarchical collective of ``ranks`` nests, innermost first.

    Nodes and what is between them; on a fabric its levels too. Where nodes hold different numbers of
    ``ranks`` there is one tier, the whole path.
    """
    if cluster.fabric is not None:
        from .fabrics.build import fabric_of
        from .fabrics.tiers import tiers

        return tiers(fabric_of(cluster), np.asarray(ranks), _crossbar_size(cluster), sharing)
    way = path(cluster, ranks, sharing=sharing)
    members = nodes_of(cluster, ranks)
    sizes = set(members.values())
    if len(members) == 1 or len(sizes) > 1 or sizes == {1}:
        return (Tier(ranks=len(ranks), bandwidth=way.bandwidth, latency=way.ring_latency),)
    per_node = sizes.pop()
    first = min(members)
    inside = path(cluster, [rank for rank in ranks if rank // cluster.accelerators_per_node == first])
    share = _own_bandwidth(cluster, way, per_node, sharing)
    return (
        Tier(ranks=per_node, bandwidth=inside.bandwidth, latency=inside.ring_latency),
        Tier(ranks=len(members), bandwidth=share, latency=way.latency),
    )
