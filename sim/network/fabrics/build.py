"""The Fabric that a cluster's `fabric` names, built once for each shape.

`fabric_of` turns a cluster's links into bandwidths and latencies, so that a switch without more is what a
cluster without a fabric has: half of the port's latency up to it, half down.
"""

from __future__ import annotations

import math
from functools import lru_cache

from ...errors import InputError
from ...hardware.cluster import Cluster, FabricSpec, Link
from . import dragonfly as dragonflies
from . import fat_tree as fat_trees
from . import rail as rails
from .fabric import Fabric
from .nodes import Crossbar, nodes
from .switch import switch
from .torus import torus
from .wan import wan

Speed = tuple[float, float]
"""(bytes/s, seconds)"""


def fabric_of(cluster: Cluster) -> Fabric:
    """The Fabric of ``cluster``, whose hosts are its ranks; a dragonfly may have more hosts than ranks.

    Raises:
        InputError: it has no `fabric`, lacks a link the fabric needs, or their sizes do not fit.
    """
    spec = cluster.fabric
    if spec is None:
        raise InputError(f"cluster {cluster.name} has no fabric")
    port = _needed(cluster, "nodes")
    inside = cluster.link("accelerators")
    crossbar = (inside.bandwidth, inside.latency / 2) if inside and spec.kind != "torus" else None
    far = _speed(_needed(cluster, "zones")) if spec.kind == "wan" else (0.0, 0.0)
    trunk = _speed(_named(cluster, spec.trunk)) if spec.trunk else (port.bandwidth, port.latency / 2)
    return _built(
        spec,
        cluster.nodes,
        cluster.accelerators_per_node,
        port.per_node,
        _speed(port),
        trunk,
        crossbar,
        far,
    )


def _needed(cluster: Cluster, joins: str) -> Link:
    link = cluster.link(joins)
    if link is None:
        raise InputError(f"cluster {cluster.name} has a fabric, but no link that joins {joins}")
    return link


def _named(cluster: Cluster, name: str) -> Link:
    if name not in cluster.links:
        raise InputError(f"cluster {cluster.name} has no link {name}, which its fabric takes for trunks")
    return cluster.links[name]


def _speed(link: Link) -> Speed:
    return link.bandwidth, link.latency


@lru_cache(maxsize=16)
def _built(
    spec: FabricSpec,
    node_count: int,
    per_node: int,
    port_per_node: bool,
    port: Speed,
    trunk: Speed,
    crossbar: Speed | None,
    far: Speed,
) -> Fabric:
    each = 1 if port_per_node else per_node
    outer = _outer(spec, node_count, each, port, trunk, far)
    if crossbar is None or per_node == 1:
        if port_per_node and per_node > 1:
            raise InputError("a port per node on a fabric needs a link that joins accelerators")
        return outer
    inside = Crossbar(accelerators=per_node, bandwidth=crossbar[0], latency=crossbar[1])
    return nodes(inside, outer, port_per_node=port_per_node, rails=spec.kind == "rail" and not port_per_node)


def _outer(spec: FabricSpec, node_count: int, each: int, port: Speed, trunk: Speed, far: Speed) -> Fabric:
    """The network between ports, ``each`` of them a node."""
    hosts = node_count * each
    speeds = {
        "bandwidth": port[0],
        "latency": port[1] / 2,
        "trunk_bandwidth": trunk[0],
        "trunk_latency": trunk[1],
    }
    if spec.kind == "torus":
        return _torus(spec, hosts, port)
    if spec.kind == "dragonfly":
        return _dragonfly(spec, hosts, each, speeds)
    if spec.kind == "rail":
        shape = rails.Shape(
            nodes=node_count, rails=each, radix=spec.radix, oversubscription=spec.oversubscription
        )
        return rails.rail(shape, **speeds)
    if spec.kind == "wan":
        return _wan(spec, node_count, hosts, speeds, far)
    return _switched(spec, hosts, speeds)


def _switched(spec: FabricSpec, hosts: int, speeds: dict[str, float]) -> Fabric:
    """One switch, or a fat-tree where leaves have a size."""
    if spec.kind == "switch" or not spec.radix:
        return switch(hosts, bandwidth=speeds["bandwidth"], latency=speeds["latency"])
    shape = fat_trees.Shape(
        hosts=hosts, radix=spec.radix, oversubscription=spec.oversubscription, pod=spec.pod
    )
    return fat_trees.fat_tree(shape, **speeds)


def _torus(spec: FabricSpec, hosts: int, port: Speed) -> Fabric:
    if math.prod(spec.dimensions) != hosts:
        shape = " x ".join(map(str, spec.dimensions))
        raise InputError(f"a torus of {shape} has {math.prod(spec.dimensions)} hosts, the cluster {hosts}")
    return torus(spec.dimensions, bandwidth=port[0], latency=port[1])


def _dragonfly(spec: FabricSpec, hosts: int, each: int, speeds: dict[str, float]) -> Fabric:
    """A node's adapters hang on different routers where numbers allow it, as in HPE Cray EX cabinets."""
    shape = dragonflies.Shape(
        groups=spec.groups,
        routers=spec.routers,
        hosts_per_router=spec.radix,
        parallel=spec.parallel,
        rails=each if spec.routers % each == 0 else 1,
    )
    if shape.hosts < hosts:
        raise InputError(
            f"a dragonfly of {spec.groups} groups x {spec.routers} routers x {spec.radix} hosts has"
            f" {shape.hosts} hosts, the cluster {hosts}"
        )
    return dragonflies.dragonfly(shape, **speeds)


def _wan(spec: FabricSpec, node_count: int, hosts: int, speeds: dict[str, float], far: Speed) -> Fabric:
    if node_count % spec.groups:
        raise InputError(f"{node_count} nodes cannot be dealt to {spec.groups} zones evenly")
    zone = _switched(spec, hosts // spec.groups, speeds)
    return wan(zone, spec.groups, bandwidth=far[0], latency=far[1])
