"""Fat-trees of two or three tiers, with oversubscription (Leiserson 1985; Al-Fares et al. 2008).

Hosts hang on leaves, ``radix`` to a leaf. With two tiers every leaf has a link to each of its uplinks'
spines; with three, ``pod`` leaves form a pod whose aggregation switches have links to the core. Upward the
target decides the link (D-mod-k), so all flows to one host come down one way and those to others spread.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from .fabric import PORT, TRUNK, Fabric, Level, columns, link_arrays, starts, where


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """The numbers of a fat-tree."""

    hosts: int
    radix: int
    """hosts of a leaf"""
    oversubscription: float = 1.0
    """bandwidth of a leaf's hosts over that of its uplinks; at a third tier the same again"""
    pod: int = 0
    """leaves of a pod; 0 is two tiers"""

    @property
    def leaves(self) -> int:
        return -(-self.hosts // self.radix)

    @property
    def uplinks(self) -> int:
        """Links from a leaf up, to as many spines (or aggregation switches of its pod)."""
        return max(1, math.ceil(self.radix / self.oversubscription))

    @property
    def pods(self) -> int:
        return -(-self.leaves // self.pod) if self.pod else 1

    @property
    def cores(self) -> int:
        """Links from an aggregation switch up; 0 with two tiers."""
        return max(1, math.ceil(self.pod / self.oversubscription)) if self.pod else 0


def fat_tree(
    shape: Shape, *, bandwidth: float, latency: float, trunk_bandwidth: float, trunk_latency: float
) -> Fabric:
    """The fat-tree of ``shape``; host links have ``bandwidth`` (bytes/s) and ``latency`` (s), links
    between switches ``trunk_bandwidth`` and ``trunk_latency``.

    A trunk that is narrower than a host's link makes the tree oversubscribed beyond what ``shape`` says.
    """
    trunks, tops = shape.leaves * shape.uplinks, shape.pods * shape.uplinks * shape.cores
    arrays = link_arrays(
        (2 * shape.hosts, PORT, bandwidth, latency),
        (2 * (trunks + tops), TRUNK, trunk_bandwidth, trunk_latency),
    )
    levels = [Level(name="leaf", hosts=shape.radix)]
    levels += [Level(name="pod", hosts=shape.radix * shape.pod)] if shape.pod else []
    return Fabric(
        kind="fat_tree",
        hosts=shape.hosts,
        **arrays,
        router=lambda sources, targets: _route(shape, sources, targets),
        levels=(*levels, Level(name="fabric", hosts=shape.hosts)),
    )


def _route(shape: Shape, sources: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Host up, leaf up, pod up, pod down, leaf down, host down; what both share is left out."""
    trunks, tops = shape.leaves * shape.uplinks, shape.pods * shape.uplinks * shape.cores
    counts = (shape.hosts, shape.hosts, trunks, trunks, tops, tops)
    _, down, leaf_up, leaf_down, pod_up, pod_down = starts(counts)
    leaf, end = sources // shape.radix, targets // shape.radix
    spine, leaves_apart = targets % shape.uplinks, leaf != end
    first = where(leaves_apart, leaf_up + leaf * shape.uplinks + spine)
    last = where(leaves_apart, leaf_down + end * shape.uplinks + spine)
    if not shape.pod:
        return columns(sources, first, last, down + targets)
    pod, other = leaf // shape.pod, end // shape.pod
    core = (targets // shape.uplinks) % shape.cores
    climb = where(pod != other, pod_up + (pod * shape.uplinks + spine) * shape.cores + core)
    descend = where(pod != other, pod_down + (other * shape.uplinks + spine) * shape.cores + core)
    return columns(sources, first, climb, descend, last, down + targets)
