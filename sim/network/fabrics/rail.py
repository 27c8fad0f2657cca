"""Rail-optimised networks: the r-th accelerators of neighbouring nodes share a leaf (a rail switch).

``radix`` nodes form a group with one leaf a rail; spines join the leaves. As in NVIDIA's DGX SuperPOD
reference architectures, where a scalable unit of 32 nodes has 8 leaves.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from .fabric import PORT, TRUNK, Fabric, Level, columns, link_arrays, starts, where


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """The numbers of a rail-optimised network; a host is one NIC."""

    nodes: int
    rails: int
    """NICs of a node"""
    radix: int
    """nodes of a group, so hosts of a leaf"""
    oversubscription: float = 1.0

    @property
    def hosts(self) -> int:
        return self.nodes * self.rails

    @property
    def leaves(self) -> int:
        return -(-self.nodes // self.radix) * self.rails

    @property
    def uplinks(self) -> int:
        return max(1, math.ceil(self.radix / self.oversubscription))


def rail(
    shape: Shape, *, bandwidth: float, latency: float, trunk_bandwidth: float, trunk_latency: float
) -> Fabric:
    """The network of ``shape``; NICs have ``bandwidth`` (bytes/s) and ``latency`` (s), links between leaves
    and spines ``trunk_bandwidth`` and ``trunk_latency``."""
    trunks = shape.leaves * shape.uplinks
    arrays = link_arrays(
        (2 * shape.hosts, PORT, bandwidth, latency), (2 * trunks, TRUNK, trunk_bandwidth, trunk_latency)
    )
    return Fabric(
        kind="rail",
        hosts=shape.hosts,
        **arrays,
        router=lambda sources, targets: _route(shape, sources, targets),
        levels=(
            Level(name="group", hosts=shape.radix * shape.rails),
            Level(name="fabric", hosts=shape.hosts),
        ),
    )


def _route(shape: Shape, sources: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Host up, leaf up, leaf down, host down; the target's node decides the spine (D-mod-k)."""
    trunks = shape.leaves * shape.uplinks
    _, down, up, back = starts((shape.hosts, shape.hosts, trunks, trunks))
    leaf, end = (
        hosts // shape.rails // shape.radix * shape.rails + hosts % shape.rails
        for hosts in (sources, targets)
    )
    spine = targets // shape.rails % shape.uplinks
    apart = leaf != end
    return columns(
        sources,
        where(apart, up + leaf * shape.uplinks + spine),
        where(apart, back + end * shape.uplinks + spine),
        down + targets,
    )
